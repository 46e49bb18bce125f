// Plots of a run: panels whose values can be read off, drawn from the numbers of the figures for print.

const ROOM = { left: 56, right: 14, top: 8, bottom: 40 };
const HEIGHT = 240;
const NIGHT = { "#000000": "#e9e9e6", "#0072b2": "#56b4e9" }; // colours that do not show on dark paper
const DASHES = { "--": "6 3", ":": "2 3" };
const SHAPES = { o: d3.symbolCircle, s: d3.symbolSquare, "^": d3.symbolTriangle };
const PIXELS = 1.6; // to a point of the figure for print
const MOST_MARKS = 60; // on a line

class Panel {
  constructor(box, data, panels) {
    this.data = data;
    this.panels = panels;
    this.named = data.series.length > 1 ? data.series.filter((one) => one.label) : data.series;
    this.steps = [...new Set(this.named.flatMap((one) => one.x))].filter((x) => x !== null).sort((a, b) => a - b);
    this.at = null;
    this.left = data.y.names.length ? 170 : ROOM.left;
    this.heading = make("h3", { textContent: data.title });
    this.tip = make("div", { className: "tip", hidden: true });
    this.spoken = make("div", { className: "unseen", role: "status" });
    this.box = make("div", { className: "panel", tabIndex: 0, role: "application" }, this.heading);
    this.box.ariaLabel = `${data.title}${data.x.label && ` against ${data.x.label}`}: arrow keys go from value to value`;
    this.svg = d3.select(this.box).append("svg").attr("height", HEIGHT).attr("aria-hidden", "true");
    this.box.append(this.tip, this.spoken);
    this.box.addEventListener("pointermove", (event) => this.#hover(event));
    this.box.addEventListener("pointerleave", () => this.point(null));
    this.box.addEventListener("keydown", (event) => this.#key(event));
    box.append(this.box);
  }

  draw() {
    const { svg, data } = this;
    const width = (this.width = this.box.clientWidth);
    if (!width) return;
    const [bottom, right] = [HEIGHT - ROOM.bottom, width - ROOM.right];
    this.x = scale(data.x, [this.left, right]);
    this.y = scale(data.y, [bottom, ROOM.top]);
    svg.attr("viewBox", `0 0 ${width} ${HEIGHT}`).selectAll("*").remove();
    svg.append("g").attr("transform", `translate(0,${bottom})`).call(axis(d3.axisBottom(this.x), data.x, width / 90));
    svg.append("g").attr("transform", `translate(${this.left},0)`).call(axis(d3.axisLeft(this.y), data.y, HEIGHT / 45));
    const write = (text, x, y) => svg.append("text").attr("fill", "currentColor").attr("x", x).attr("y", y).text(text);
    write(data.x.label, right, HEIGHT - 6).attr("class", "title").attr("text-anchor", "end");
    write(data.note || data.y.label, this.left + 6, ROOM.top + 8);
    for (const one of data.series) this.#series(one);
    this.cursor = svg.append("line").attr("class", "cursor").attr("y1", ROOM.top).attr("y2", bottom);
    this.point(null);
  }

  #series(one) {
    const { x, y } = this;
    const all = d3.range(one.x.length);
    const has = (i) => on(x, one.x[i]) && on(y, one.y[i]);
    const curve = one.stepped ? d3.curveStepAfter : d3.curveLinear;
    const line = d3.line().defined(has).x((i) => x(one.x[i])).y((i) => y(one.y[i])).curve(curve);
    if (one.band) {
      const [low, high] = one.band;
      const area = d3.area().defined((i) => low[i] !== null && on(y, high[i])).x((i) => x(one.x[i])).curve(curve);
      area.y0((i) => y(Math.max(low[i], y.domain()[0]))).y1((i) => y(high[i]));
      this.svg.append("path").attr("d", area(all)).attr("fill", tint(one.colour)).attr("opacity", 0.2);
    }
    const marks = all.filter(has).map((i) => [x(one.x[i]), y(one.y[i])]);
    const some = one.line && marks.length > MOST_MARKS ? [] : marks;
    sketch(this.svg, one, line(all), some, Math.max(6, (one.size * PIXELS) ** 2));
  }

  #hover(event) {
    const [place] = d3.pointer(event, this.box);
    this.point(this.steps[d3.bisectCenter(this.steps.map(this.x), place)] ?? null);
  }

  #key(event) {
    const by = { ArrowRight: 1, ArrowLeft: -1, Home: -Infinity, End: Infinity }[event.key];
    if (event.key === "Escape") this.point(null);
    if (by === undefined || !this.steps.length) return;
    event.preventDefault();
    const last = this.steps.length - 1;
    const from = this.at === null ? (by > 0 ? -1 : last + 1) : this.steps.indexOf(this.at);
    this.point(this.steps[Math.max(0, Math.min(last, from + by))]);
    this.spoken.textContent = this.tip.innerText;
  }

  // Show the values at an x, and a line there in all panels; null takes them away.
  point(step) {
    this.at = step;
    for (const { cursor, x } of this.panels) {
      const there = step !== null && x && on(x, step);
      cursor?.style("display", there ? null : "none");
      if (there) cursor.attr("x1", x(step)).attr("x2", x(step));
    }
    this.tip.hidden = step === null;
    if (step === null) return;
    const values = this.named.flatMap((one) => {
      const i = one.stepped ? d3.bisectRight(one.x, step) - 1 : one.x.indexOf(step);
      if (i < 0 || one.y[i] === null) return [];
      const band = one.band ? ` (${one.band.map((ends) => short(ends[i])).join(" to ")})` : "";
      return [make("span", { textContent: `${one.label ? `${one.label}: ` : ""}${this.data.y.names[one.y[i]] ?? short(one.y[i])}${band}` })];
    });
    const name = this.data.x.label.replace(/ \(.*/, "");
    this.tip.replaceChildren(make("b", { textContent: `${name} ${short(step)}` }), ...values);
    const [place, room] = [this.x(step), this.tip.offsetWidth + 12];
    this.tip.style.left = `${Math.max(0, place + room > this.width ? place - room : place + 12)}px`;
    this.tip.style.top = `${this.heading.offsetHeight + 4}px`;
  }
}

function scale({ scale: kind, linear, ends }, range) {
  const empty = { log: d3.scaleLog(), symlog: d3.scaleSymlog().constant(linear) }[kind] ?? d3.scaleLinear();
  return empty.domain(ends).range(range);
}

function axis(empty, { scale: kind, ends, names }, room) {
  if (names.length) return empty.tickValues(d3.range(names.length)).tickFormat((i) => names[i]).tickSizeOuter(0);
  const n = Math.max(2, Math.floor(room));
  if (kind === "symlog") {
    const powers = d3.range(0, 16).map((power) => 10 ** power).filter((value) => value <= ends[1]);
    const every = Math.ceil((powers.length + 1) / n);
    empty.tickValues([0, ...powers.filter((_, i) => i % every === 0)]).tickFormat(short);
  } else if (kind === "log") empty.ticks(n, short);
  else empty.ticks(n).tickFormat(short);
  return empty.tickSizeOuter(0);
}

// Whether a scale has a place for a value: a logarithmic one has none for 0.
function on(to, value) {
  return value !== null && Number.isFinite(to(value));
}

function tint(colour) {
  return night.matches ? (NIGHT[colour] ?? colour) : colour;
}

// The line and the marks of a series.
function sketch(svg, one, path, marks, size) {
  const colour = tint(one.colour);
  const group = svg.append("g").attr("opacity", one.alpha).attr("fill", "none").attr("stroke", colour);
  if (one.line) group.append("path").attr("d", path).attr("stroke-width", one.width * PIXELS).attr("stroke-dasharray", DASHES[one.line] ?? null);
  if (!one.mark) return;
  group.selectAll(".point").data(marks).join("path").attr("d", d3.symbol(SHAPES[one.mark], size))
    .attr("transform", ([x, y]) => `translate(${x},${y})`).attr("fill", one.hollow ? "none" : colour).attr("stroke", one.hollow ? colour : "none");
}

function legend(series) {
  const list = make("ul", { className: "key" });
  for (const one of series) {
    const item = make("li");
    const svg = d3.select(item).append("svg").attr("viewBox", "0 0 32 16").attr("aria-hidden", "true");
    sketch(svg, one, "M0,8H32", [[16, 8]], 50);
    item.append(one.label);
    list.append(item);
  }
  return list;
}

for (const box of document.querySelectorAll("[data-curves]")) {
  const panels = [];
  for (const data of JSON.parse(document.getElementById(box.dataset.curves).textContent)) panels.push(new Panel(box.firstChild, data, panels));
  const named = new Map(panels.flatMap(({ data }) => data.series.filter((one) => one.label).map((one) => [one.label, one])));
  const draw = () => {
    panels.forEach((panel) => panel.draw());
    box.querySelector(".key")?.remove();
    if (named.size > 1) box.append(legend(named.values()));
  };
  new ResizeObserver(draw).observe(box);
  night.addEventListener("change", draw);
  draw();
}
document.documentElement.dataset.ready = "";
