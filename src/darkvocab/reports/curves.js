// The curves of a run's figures: the same numbers as in the pictures for print, to be read off.

const ROOM = { left: 56, right: 14, top: 8, bottom: 40 };
const HEIGHT = 240;
const NIGHT = { "#000000": "#e9e9e6", "#0072b2": "#56b4e9" }; // what would not show on dark paper
const SHAPES = { o: d3.symbolCircle, ".": d3.symbolCircle, s: d3.symbolSquare, "^": d3.symbolTriangle };

class Panel {
  constructor(box, data) {
    this.data = data;
    this.named = data.series.filter((one) => one.named);
    this.steps = [...new Set(this.named.flatMap((one) => one.x))].filter((x) => x !== null).sort((a, b) => a - b);
    this.at = null;
    this.box = make("div", { className: "panel" }, make("h3", { textContent: data.title }));
    this.svg = d3.select(this.box).append("svg").attr("height", HEIGHT);
    this.tip = make("div", { className: "tip", hidden: true });
    this.heard = make("div", { className: "unseen", role: "status" });
    this.box.append(this.tip, this.heard);
    this.box.tabIndex = 0;
    this.box.setAttribute("role", "application");
    this.box.setAttribute("aria-label", `${data.title} against ${data.x.title || "x"}: arrow keys go from value to value`);
    this.box.addEventListener("pointermove", (event) => this.#hover(event));
    this.box.addEventListener("pointerleave", () => this.point(null));
    this.box.addEventListener("keydown", (event) => this.#key(event));
    box.querySelector(".panels").append(this.box);
  }

  draw() {
    const { svg, data } = this;
    const width = (this.width = this.box.clientWidth);
    if (!width) return;
    this.x = scale(data.x, [ROOM.left, width - ROOM.right]);
    this.y = scale(data.y, [HEIGHT - ROOM.bottom, ROOM.top]);
    svg.attr("viewBox", `0 0 ${width} ${HEIGHT}`).attr("aria-hidden", "true").selectAll("*").remove();
    svg.append("g").attr("transform", `translate(0,${HEIGHT - ROOM.bottom})`).call(axis(d3.axisBottom(this.x), data.x, width / 90));
    svg.append("g").attr("transform", `translate(${ROOM.left},0)`).call(axis(d3.axisLeft(this.y), data.y, HEIGHT / 45));
    svg.append("text").attr("class", "title").attr("x", width - ROOM.right).attr("y", HEIGHT - 6).attr("text-anchor", "end").text(data.x.title);
    svg.append("text").attr("x", ROOM.left + 6).attr("y", ROOM.top + 8).attr("fill", "currentColor").text(data.y.title);
    for (const one of data.series) this.#series(one);
    this.cursor = svg.append("line").attr("class", "cursor").attr("y1", ROOM.top).attr("y2", HEIGHT - ROOM.bottom).style("display", "none");
    this.point(null);
  }

  #series(one) {
    const { svg, x, y } = this;
    const places = d3.range(one.x.length).filter((i) => shown(x, one.x[i]) && shown(y, one.y[i]));
    const colour = tint(one.colour);
    const curve = one.stepped ? d3.curveStepAfter : d3.curveLinear;
    if (one.band) {
      const [low, high] = one.band;
      const area = d3.area().x((i) => x(one.x[i])).y0((i) => y(Math.max(low[i], y.domain()[0]))).y1((i) => y(high[i]));
      svg.append("path").attr("d", area(places)).attr("fill", colour).attr("opacity", 0.2);
    }
    if (one.line) {
      const line = d3.line().defined((i) => shown(x, one.x[i]) && shown(y, one.y[i])).x((i) => x(one.x[i])).y((i) => y(one.y[i])).curve(curve);
      svg.append("path").attr("d", line(d3.range(one.x.length))).attr("fill", "none").attr("stroke", colour)
        .attr("stroke-width", one.faint ? 0.8 : 1.6).attr("opacity", one.faint ? 0.3 : 1).attr("stroke-dasharray", one.dash || null);
    }
    if (one.mark && !(one.line && places.length > 60)) {
      const size = one.mark === "." ? 6 : Math.max(8, Math.min(36, 2400 / places.length));
      const open = one.mark === "^" && !one.line; // what it coincides with shows through
      svg.append("g").attr("fill", open ? "none" : colour).attr("stroke", open ? colour : "none").attr("opacity", 0.8)
        .selectAll("path").data(places).join("path").attr("d", d3.symbol(SHAPES[one.mark], size))
        .attr("transform", (i) => `translate(${x(one.x[i])},${y(one.y[i])})`);
    }
  }

  #hover(event) {
    const [place] = d3.pointer(event, this.box);
    const next = d3.bisectCenter(this.steps.map((step) => this.x(step)), place);
    this.point(this.steps[next] ?? null);
    for (const other of this.others) if (other !== this) other.mark(this.steps[next] ?? null);
  }

  #key(event) {
    const by = { ArrowRight: 1, ArrowLeft: -1, Home: -Infinity, End: Infinity }[event.key];
    if (event.key === "Escape") this.point(null);
    if (by === undefined || !this.steps.length) return;
    event.preventDefault();
    const from = this.at === null ? (by > 0 ? -1 : this.steps.length) : this.steps.indexOf(this.at);
    this.point(this.steps[Math.max(0, Math.min(this.steps.length - 1, from + by))]);
    this.heard.textContent = this.tip.innerText;
  }

  // The line at a value of x; null takes it away.
  mark(step) {
    const there = step !== null && shown(this.x, step);
    this.cursor?.style("display", there ? null : "none");
    if (there) this.cursor.attr("x1", this.x(step)).attr("x2", this.x(step));
  }

  point(step) {
    this.at = step;
    for (const other of this.others ?? [this]) other.mark(step);
    this.tip.hidden = step === null;
    if (step === null) return;
    const lines = this.named.flatMap((one) => {
      const i = one.stepped ? d3.bisectRight(one.x, step) - 1 : one.x.indexOf(step);
      if (i < 0 || one.y[i] === null) return [];
      const band = one.band ? ` (${short(one.band[0][i])} to ${short(one.band[1][i])})` : "";
      return [make("span", { textContent: `${one.label ? `${one.label}: ` : ""}${short(one.y[i])}${band}` })];
    });
    this.tip.replaceChildren(make("b", { textContent: `${this.data.x.title.replace(/ \(.*/, "") || "x"} ${short(step)}` }), ...lines);
    const place = this.x(step);
    const right = place + 12 + this.tip.offsetWidth > this.width;
    this.tip.style.left = `${Math.max(0, right ? place - 12 - this.tip.offsetWidth : place + 12)}px`;
    this.tip.style.top = `${this.box.firstChild.offsetHeight + 4}px`;
  }
}

function scale({ scale: kind, linear, ends }, range) {
  const made = { log: d3.scaleLog, symlog: () => d3.scaleSymlog().constant(linear) }[kind] ?? d3.scaleLinear;
  return made().domain(ends).range(range);
}

function axis(made, { scale: kind, ends }, room) {
  const n = Math.max(2, Math.floor(room));
  if (kind === "symlog") {
    const powers = d3.range(0, 16).map((power) => 10 ** power).filter((value) => value <= ends[1]);
    const apart = Math.ceil((powers.length + 1) / n);
    made.tickValues([0, ...powers.filter((_, i) => i % apart === 0)]).tickFormat(short);
  } else if (kind === "log") made.ticks(n, short);
  else made.ticks(n).tickFormat(short);
  return made.tickSizeOuter(0);
}

// Whether a value has a place on a scale: a logarithmic one has none for 0.
function shown(to, value) {
  return value !== null && Number.isFinite(to(value));
}

function tint(colour) {
  return night.matches ? (NIGHT[colour] ?? colour) : colour;
}

function legend(series) {
  const list = make("ul", { className: "key" });
  for (const one of series) {
    const item = make("li");
    const svg = d3.select(item).append("svg").attr("viewBox", "0 0 32 16").attr("aria-hidden", "true");
    const draw = () => {
      svg.selectAll("*").remove();
      if (one.line) svg.append("path").attr("d", "M0,8H32").attr("stroke", tint(one.colour)).attr("stroke-width", 2).attr("stroke-dasharray", one.dash || null);
      if (one.mark) svg.append("path").attr("d", d3.symbol(SHAPES[one.mark], 50)).attr("transform", "translate(16,8)").attr("fill", tint(one.colour));
    };
    draw();
    night.addEventListener("change", draw);
    item.append(one.label);
    list.append(item);
  }
  return list;
}

for (const box of document.querySelectorAll("[data-curves]")) {
  const panels = JSON.parse(document.getElementById(box.dataset.curves).textContent).map((data) => new Panel(box, data));
  const named = new Map(panels.flatMap((panel) => panel.data.series.map((one) => [one.label, one])).filter(([label]) => label));
  if (named.size > 1) box.append(legend([...named.values()]));
  const draw = () => panels.forEach((panel) => panel.draw());
  for (const panel of panels) panel.others = panels;
  new ResizeObserver(draw).observe(box);
  night.addEventListener("change", draw);
  draw();
}
document.documentElement.dataset.ready = "";
