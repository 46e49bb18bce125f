// A table in pages: columns to sort by, rows that open.

class List {
  // columns: {key, title, numeric, less(i, j), show(cell, i), missing(i), falling}; open(i): what an open row holds
  constructor(table, pager, { columns, n, size = 25, open, sorted }) {
    Object.assign(this, { table, pager, columns, n, size, open, sorted, at: 0, opened: new Set(), chosen: -1 });
    this.orders = new Map();
    this.shown = () => true;
    this.body = table.tBodies[0];
    this.buttons = {};
    this.#head();
    this.#pages();
  }

  // Another column may come and go: the indicator that is on the axis.
  setColumns(columns) {
    this.columns = columns;
    this.#head();
    this.draw();
  }

  filter(shown) {
    this.shown = shown;
    this.at = 0;
    this.update();
  }

  update() {
    this.rows = this.order().filter(this.shown);
    this.draw();
  }

  // All rows by the column that is sorted by; missing values last, equal ones as they come.
  order() {
    const { key, falling } = this.sorted;
    const name = `${key} ${falling}`;
    if (!this.orders.has(name)) {
      const { less, missing = () => false } = this.columns.find((column) => column.key === key);
      const all = Array.from({ length: this.n }, (_, i) => i);
      const there = Uint32Array.from(all.filter((i) => !missing(i)));
      there.sort(falling ? (i, j) => less(j, i) || i - j : (i, j) => less(i, j) || i - j);
      this.orders.set(name, Uint32Array.from([...there, ...all.filter(missing)]));
    }
    return this.orders.get(name);
  }

  sortBy(key) {
    const column = this.columns.find((one) => one.key === key);
    const falling = this.sorted.key === key ? !this.sorted.falling : Boolean(column.falling);
    this.sorted = { key, falling };
    this.at = 0;
    this.#head();
    this.update();
    this.table.querySelector(`th[data-key="${key}"] button`).focus();
  }

  // Show a row, wherever it is, open.
  reveal(i) {
    const place = this.rows.indexOf(i);
    if (place < 0) return false;
    this.at = place - (place % this.size);
    this.opened.add(i);
    this.chosen = i;
    this.draw();
    const button = this.body.querySelector(`button[data-row="${i}"]`);
    button.closest("tr").scrollIntoView({ block: "center" });
    button.focus({ preventScroll: true });
    return true;
  }

  turn(by) {
    this.at = Math.min(Math.max(this.at + by * this.size, 0), this.#last());
    this.draw();
  }

  #last() {
    return Math.max(0, Math.ceil(this.rows.length / this.size) - 1) * this.size;
  }

  draw(count = this.size) {
    const lines = [];
    for (const i of this.rows.subarray(this.at, this.at + count)) {
      const line = make("tr");
      line.classList.toggle("chosen", i === this.chosen);
      this.columns.forEach((column, place) => {
        const cell = make("td", { className: column.numeric ? "n" : "" });
        if (place) column.show(cell, i);
        else cell.append(this.#opener(column, i));
        line.append(cell);
      });
      lines.push(line);
      if (this.opened.has(i)) lines.push(this.#card(i));
    }
    if (!lines.length) {
      const cell = make("td", { textContent: "No token is like that." });
      cell.colSpan = this.columns.length;
      lines.push(make("tr", {}, cell));
    }
    this.body.replaceChildren(...lines);
    const pages = Math.max(1, Math.ceil(this.rows.length / this.size));
    const page = Math.floor(this.at / this.size) + 1;
    this.buttons.where.textContent = `page ${thousands(page)} of ${thousands(pages)}`;
    this.buttons.first.disabled = this.buttons.before.disabled = page === 1;
    this.buttons.next.disabled = this.buttons.last.disabled = page === pages;
  }

  #opener(column, i) {
    const button = make("button", { type: "button" });
    column.show(button, i);
    button.dataset.row = i;
    button.setAttribute("aria-expanded", this.opened.has(i));
    button.addEventListener("click", () => {
      if (!this.opened.delete(i)) this.opened.add(i);
      this.draw();
      this.body.querySelector(`button[data-row="${i}"]`).focus();
    });
    return button;
  }

  #card(i) {
    const cell = make("td", {}, this.open(i));
    cell.colSpan = this.columns.length;
    return make("tr", {}, cell);
  }

  #head() {
    const line = make("tr");
    for (const column of this.columns) {
      const button = make("button", { type: "button", textContent: column.title });
      button.addEventListener("click", () => this.sortBy(column.key));
      const cell = make("th", { scope: "col", className: column.numeric ? "n" : "" }, button);
      cell.dataset.key = column.key;
      if (this.sorted.key === column.key)
        cell.setAttribute("aria-sort", this.sorted.falling ? "descending" : "ascending");
      line.append(cell);
    }
    this.table.tHead.replaceChildren(line);
    const { title } = this.columns.find((column) => column.key === this.sorted.key);
    this.table.caption.textContent = `Tokens by ${this.sorted.falling ? "falling" : "rising"} ${title}`;
  }

  #pages() {
    const turns = { first: ["«", "First page"], before: ["‹", "Page before"], next: ["›", "Next page"], last: ["»", "Last page"] };
    const by = { first: -Infinity, before: -1, next: 1, last: Infinity };
    for (const [name, [sign, label]] of Object.entries(turns)) {
      const button = make("button", { type: "button", textContent: sign, ariaLabel: label });
      button.addEventListener("click", () => this.turn(by[name]));
      this.buttons[name] = button;
    }
    this.buttons.where = make("span", { role: "status" });
    const { first, before, where, next, last } = this.buttons;
    this.pager.replaceChildren(first, before, where, next, last);
  }
}
