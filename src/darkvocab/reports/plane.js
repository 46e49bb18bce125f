// Points on a plane: a canvas for the marks, SVG for the axes; zoom, hover text, and keys that go from point to point.

const MARGIN = { left: 58, right: 16, top: 14, bottom: 40 };
const NAMED = { ...MARGIN, left: 150 }; // names, not numbers, at the left
const BARE = { left: 14, right: 14, top: 14, bottom: 14 };
const REACH = 28; // pixels from a mark within which it answers
let printing = false;

class Plane {
  // looks: {shape (SVG path), light, dark, size} of kinds of points; describe(i): [name, line, line, ...]
  constructor(box, { label, looks, describe, choose, hint }) {
    Object.assign(this, { box, looks, describe, choose, hint, at: -1, edges: [], marks: [], bare: false });
    this.canvas = make("canvas");
    this.svg = d3.select(box).append(() => document.createElementNS("http://www.w3.org/2000/svg", "svg"));
    this.svg.attr("aria-hidden", "true");
    this.tip = make("div", { className: "tip", hidden: true });
    this.heard = make("div", { className: "unseen", role: "status" });
    box.prepend(this.canvas);
    box.append(this.tip, this.heard, this.#buttons());
    box.tabIndex = 0;
    box.setAttribute("role", "application");
    box.setAttribute("aria-label", label);
    this.transform = d3.zoomIdentity;
    this.zoom = d3
      .zoom()
      .scaleExtent([1, 4000])
      .filter((event) => this.#mayZoom(event))
      .on("zoom", ({ transform }) => {
        this.transform = transform;
        this.#hide();
        this.#soon();
      });
    d3.select(box).call(this.zoom);
    box.addEventListener("pointermove", (event) => this.#hover(event));
    box.addEventListener("pointerleave", (event) => event.pointerType === "touch" || this.#hide());
    box.addEventListener("click", (event) => this.#click(event));
    box.addEventListener("keydown", (event) => this.#key(event));
    new ResizeObserver(() => this.layout()).observe(box);
    night.addEventListener("change", () => this.#soon());
    addEventListener("beforeprint", () => this.#print(true));
    addEventListener("afterprint", () => this.#print(false));
  }

  // x, y: {values, title, log, names: y's, of 0, 1, 2...}; stems: lines down to the axis; look: of each point; filled, size: of each point, or nothing; visible(i); route: points
  // in the order of the arrow keys; edges: pairs of points; marks: {axis, at, title}; equal: one unit for both axes
  set(options) {
    Object.assign(this, options);
    if (options.x || options.y) this.#show(d3.zoomIdentity);
    this.layout();
  }

  layout() {
    this.width = this.box.clientWidth;
    this.height = this.box.clientHeight;
    if (!this.x || !this.width) return;
    this.margin = this.bare ? BARE : this.y.names ? NAMED : MARGIN;
    const seen = this.visible ?? (() => true);
    const { left, right, top, bottom } = this.margin;
    this.scaleX = scale(this.x, [left + 8, this.width - right - 8], seen);
    this.scaleY = scale(this.y, [this.height - bottom - 8, top + 8], seen);
    if (this.equal) equalise(this.scaleX, this.scaleY);
    this.px = placed(this.x.values, this.scaleX, this.x.log);
    this.py = placed(this.y.values, this.scaleY, this.y.log);
    this.zoom.extent([[left, top], [this.width - right, this.height - bottom]]);
    this.zoom.translateExtent([[left, top], [this.width - right, this.height - bottom]]);
    this.#arrange();
    this.#soon();
  }

  // Which points there are to see, look by look; what is there to hover over is found out when it is needed.
  #arrange() {
    this.near = null;
    const { look, visible = () => true } = this;
    this.points = this.looks.map(() => []);
    this.there = new Uint8Array(this.px.length);
    for (let i = 0; i < this.px.length; i++)
      if (!Number.isNaN(this.px[i] + this.py[i]) && visible(i)) {
        this.there[i] = 1;
        this.points[look[i]].push(i);
      }
    if (this.size) for (const points of this.points) points.sort((i, j) => this.size[j] - this.size[i]); // small over large
  }

  #soon() {
    if (printing) return this.draw();
    if (this.asked) return;
    this.asked = true;
    requestAnimationFrame(() => this.draw());
  }

  draw() {
    this.asked = false;
    if (!this.px) return;
    const { canvas, width, height } = this;
    const ratio = printing ? 3 : window.devicePixelRatio || 1;
    canvas.width = width * ratio;
    canvas.height = height * ratio;
    const context = canvas.getContext("2d");
    context.scale(ratio, ratio);
    context.save();
    const { left, right, top, bottom } = this.margin;
    context.beginPath();
    context.rect(left - 1, top - 1, width - left - right + 2, height - top - bottom + 2);
    context.clip();
    const dark = night.matches && !printing;
    if (this.edges.length) this.#lines(context, dark);
    if (this.stems) this.#stems(context, dark);
    const places = d3.range(this.looks.length).sort((a, b) => this.points[b].length - this.points[a].length);
    for (const place of places) this.#marks(context, this.points[place], this.looks[place], dark, ratio); // few over many
    context.restore();
    this.#axes();
    this.#ring();
    this.drawn = true;
  }

  #lines(context, dark) {
    const { px, py, transform: t } = this;
    context.strokeStyle = dark ? "#fff" : "#000";
    context.globalAlpha = Math.max(0.08, Math.min(0.4, 60 / this.edges.length));
    context.beginPath();
    for (const [i, j] of this.edges) {
      context.moveTo(t.applyX(px[i]), t.applyY(py[i]));
      context.lineTo(t.applyX(px[j]), t.applyY(py[j]));
    }
    context.stroke();
    context.globalAlpha = 1;
  }

  // A line from each mark down to the axis.
  #stems(context, dark) {
    const { px, py, transform: t, looks, height, margin } = this;
    context.strokeStyle = dark ? looks[0].dark : looks[0].light;
    context.beginPath();
    for (const i of this.points[0]) {
      context.moveTo(t.applyX(px[i]), t.applyY(py[i]));
      context.lineTo(t.applyX(px[i]), height - margin.bottom);
    }
    context.stroke();
  }

  #marks(context, points, look, dark, ratio) {
    const { px, py, filled, size, width, height, transform: t } = this;
    const colour = dark ? look.dark : look.light;
    const radius = look.size;
    const plain = !size && points.length > 4000;
    context.fillStyle = colour;
    context.globalAlpha = plain ? 0.5 : 0.9;
    const stamps = plain || size ? null : [stamp(look.shape, radius, colour, false, ratio), stamp(look.shape, radius, colour, true, ratio)];
    const path = new Path2D(look.shape);
    for (const i of points) {
      const x = t.applyX(px[i]);
      const y = t.applyY(py[i]);
      if (x < -20 || y < -20 || x > width + 20 || y > height + 20) continue;
      if (plain) {
        context.fillRect(x - 1, y - 1, 2, 2);
      } else if (stamps) {
        const { picture, half } = stamps[filled && !filled[i] ? 0 : 1];
        context.drawImage(picture, x - half, y - half, 2 * half, 2 * half);
      } else {
        context.save();
        context.translate(x, y);
        context.scale(size[i], size[i]);
        context.fill(path);
        context.restore();
      }
    }
    context.globalAlpha = 1;
  }

  #axes() {
    const { svg, width, height, transform: t } = this;
    svg.attr("viewBox", `0 0 ${width} ${height}`).selectAll("*").remove();
    const { left, right, top, bottom } = this.margin;
    const x = t.rescaleX(this.scaleX);
    const y = t.rescaleY(this.scaleY);
    if (!this.bare) {
      svg.append("g").attr("transform", `translate(0,${height - bottom})`).call(ticked(d3.axisBottom(x), width / 90));
      const { names } = this.y;
      const upright = names ? d3.axisLeft(y).tickValues(d3.range(names.length)).tickFormat((at) => names[at]).tickSizeOuter(0) : ticked(d3.axisLeft(y), height / 50);
      svg.append("g").attr("transform", `translate(${left},0)`).call(upright);
      svg.append("text").attr("class", "title").attr("x", width - right).attr("y", height - 6).attr("text-anchor", "end").text(this.x.title);
      svg.append("text").attr("class", "title").attr("x", left + 8).attr("y", top + 4).text(this.y.title);
    }
    for (const { axis, at, title } of this.marks) {
      const upright = axis === "x";
      const place = upright ? x(at) : y(at);
      if (!(upright ? place > left && place <= width - right : place > top && place < height - bottom)) continue;
      const line = upright ? [place, top, place, height - bottom] : [left, place, width - right, place];
      const named = upright ? [place - 6, top + 22] : [width - right - 6, place - 6];
      svg.append("line").attr("class", "threshold").attr("x1", line[0]).attr("y1", line[1]).attr("x2", line[2]).attr("y2", line[3]);
      svg.append("text").attr("class", "threshold-name").attr("x", named[0]).attr("y", named[1]).attr("text-anchor", "end").text(title);
    }
    this.ring = svg.append("circle").attr("class", "ring").attr("r", 9).style("display", "none");
  }

  #ring() {
    if (this.at < 0) {
      this.ring?.style("display", "none");
      return;
    }
    const radius = Math.max(9, (this.size?.[this.at] ?? 0) + 4);
    const [x, y] = this.#place(this.at);
    this.ring?.attr("cx", x).attr("cy", y).attr("r", radius).style("display", null);
  }

  // The point nearest to a place on the screen; coincident ones answer as one.
  #nearest([x, y]) {
    if (!this.near) {
      const points = Uint32Array.from(this.points.flat());
      const places = new Float64Array(2 * points.length);
      points.forEach((i, at) => {
        places[2 * at] = this.px[i];
        places[2 * at + 1] = this.py[i];
      });
      this.near = { points, found: points.length ? new d3.Delaunay(places) : null };
    }
    if (!this.near.found) return -1;
    const i = this.near.points[this.near.found.find(...this.transform.invert([x, y]))];
    return Math.hypot(...this.#place(i, x, y)) <= Math.max(REACH, this.size?.[i] ?? 0) ? i : -1;
  }

  // Where a point is on the screen, as seen from a place.
  #place(i, x = 0, y = 0) {
    const [px, py] = this.transform.apply([this.px[i], this.py[i]]);
    return [px - x, py - y];
  }

  #hover(event) {
    if (!this.px || event.buttons || event.pointerType === "touch") return;
    this.point(this.#nearest(d3.pointer(event, this.box)), false);
  }

  // Go to a point: its ring, its text beside it, and, with the keyboard, its text to be heard.
  point(i, aloud) {
    if (i === this.at && !aloud) return;
    this.at = i;
    this.#ring();
    this.tip.hidden = i < 0;
    if (i < 0) return;
    const [name, ...lines] = this.describe(i);
    const hint = this.choose && this.hint ? [this.hint] : [];
    this.tip.replaceChildren(make("b", { textContent: name }), ...[...lines, ...hint].map((line) => make("span", { textContent: line })));
    const [x, y] = this.#place(i);
    const across = this.tip.offsetWidth;
    const down = this.tip.offsetHeight;
    this.tip.style.left = `${Math.max(4, x + 16 + across > this.width ? x - 16 - across : x + 16)}px`;
    this.tip.style.top = `${Math.max(4, Math.min(y + 12, this.height - down - 4))}px`;
    if (aloud) this.heard.textContent = [name, ...lines].join(", ");
  }

  #hide() {
    this.point(-1, false);
  }

  #click(event) {
    if (event.target.closest("button") || !this.px) return;
    const [x, y] = d3.pointer(event, this.box);
    const told = this.at >= 0 && Math.hypot(...this.#place(this.at, x, y)) <= REACH;
    if (!told) this.point(this.#nearest([x, y]), false);
    // A finger cannot hover: the first tap tells, the next one goes.
    if (this.at >= 0 && (told || event.pointerType !== "touch")) this.choose?.(this.at);
  }

  #key(event) {
    if (event.target !== this.box || event.ctrlKey || event.metaKey || event.altKey) return;
    const goes = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, Home: -Infinity, End: Infinity };
    if (event.key in goes) this.#go(goes[event.key]);
    else if (event.key === "Enter" && this.at >= 0) this.choose?.(this.at);
    else if (event.key === "Escape") this.#hide();
    else if (event.key === "+" || event.key === "=") this.#scale(1.6);
    else if (event.key === "-") this.#scale(1 / 1.6);
    else if (event.key === "0") this.#show(d3.zoomIdentity);
    else return;
    event.preventDefault();
  }

  // To the next point of the route, or the one before, that is to be seen; or to its first or last one.
  #go(by) {
    const { route = [] } = this;
    const way = Number.isFinite(by) ? by : -Math.sign(by);
    let place = by === -Infinity ? 0 : by === Infinity ? route.length - 1 : this.at < 0 ? 0 : route.indexOf(this.at) + by;
    while (place >= 0 && place < route.length && !this.there[route[place]]) place += way;
    if (place >= 0 && place < route.length) this.point(route[place], true);
  }

  #mayZoom(event) {
    if (event.target.closest?.(".zoom")) return false;
    if (event.type === "wheel") return event.ctrlKey || event.metaKey;
    if (event.type.startsWith("touch")) return event.touches.length > 1 || this.transform.k > 1;
    return !event.button;
  }

  #scale(by) {
    d3.select(this.box).transition().duration(still.matches ? 0 : 200).call(this.zoom.scaleBy, by);
  }

  #show(transform) {
    d3.select(this.box).call(this.zoom.transform, transform);
  }

  #buttons() {
    const nearer = make("button", { type: "button", textContent: "+", ariaLabel: "Zoom in" });
    const farther = make("button", { type: "button", textContent: "−", ariaLabel: "Zoom out" });
    const all = make("button", { type: "button", textContent: "⤢", ariaLabel: "Show all" });
    nearer.addEventListener("click", () => this.#scale(1.6));
    farther.addEventListener("click", () => this.#scale(1 / 1.6));
    all.addEventListener("click", () => this.#show(d3.zoomIdentity));
    return make("div", { className: "zoom controls" }, nearer, farther, all);
  }

  #print(now) {
    printing = now;
    this.layout();
    this.draw();
  }
}

// From the smallest to the largest value that is to be seen; on a logarithmic axis of those above zero.
function scale({ values, log, names }, range, seen) {
  let low = names ? -0.5 : Infinity;
  let high = names ? names.length - 0.5 : -Infinity;
  for (let i = 0; i < values.length; i++)
    if (Number.isFinite(values[i]) && (!log || values[i] > 0) && seen(i)) {
      if (values[i] < low) low = values[i];
      if (values[i] > high) high = values[i];
    }
  if (low > high) [low, high] = [log ? 1 : 0, log ? 10 : 1];
  if (low === high) [low, high] = log ? [low / 2, high * 2] : [low - (Math.abs(low) || 1) / 2, high + (Math.abs(high) || 1) / 2];
  return (log ? d3.scaleLog() : d3.scaleLinear()).domain([low, high]).range(range);
}

function equalise(x, y) {
  const unit = (one) => Math.abs((one.domain()[1] - one.domain()[0]) / (one.range()[1] - one.range()[0]));
  const longer = Math.max(unit(x), unit(y));
  for (const one of [x, y]) {
    const middle = (one.domain()[0] + one.domain()[1]) / 2;
    const half = (longer * Math.abs(one.range()[1] - one.range()[0])) / 2;
    one.domain([middle - half, middle + half]);
  }
}

// Pixels of values; what a logarithmic axis cannot show lies at its end.
function placed(values, to, log) {
  const [low] = to.domain();
  const pixels = new Float32Array(values.length);
  for (let i = 0; i < values.length; i++) pixels[i] = to(log && values[i] <= 0 ? low : values[i]);
  return pixels;
}

function ticked(axis, room) {
  const n = Math.max(2, Math.floor(room));
  return (axis.scale().base ? axis.ticks(n, short) : axis.ticks(n).tickFormat(short)).tickSizeOuter(0);
}

// A mark drawn once, to be put down many times.
function stamp(shape, radius, colour, filled, ratio) {
  const half = radius * 1.4 + 1.5;
  const picture = make("canvas");
  picture.width = picture.height = Math.ceil(2 * half * ratio);
  const context = picture.getContext("2d");
  context.scale(picture.width / (2 * half), picture.width / (2 * half));
  context.translate(half, half);
  context.scale(radius, radius);
  const path = new Path2D(shape);
  context.fillStyle = context.strokeStyle = colour;
  context.lineWidth = 1.2 / radius;
  if (filled) context.fill(path);
  context.stroke(path);
  return { picture, half };
}
