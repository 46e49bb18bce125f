// The page of a scan: figures, the list of tokens, filters that serve both, and ways to take them along.

const $ = (id) => document.getElementById(id);
const four = (value) => (Number.isFinite(value) ? short(Number(value.toPrecision(4))) : "");

async function open() {
  const data = await unpack($("packed").textContent);
  $("packed").remove();
  const { column, report, kinds } = data;
  const place = (id) => (column.id[id] === id ? id : column.id.indexOf(id));
  const name = (i) => cut(data.safe("text", i) ?? `token ${column.id[i]}, no text`, 200);
  const indicators = report.indicators.columns;
  const titles = { score: "score", id: "token id", ...Object.fromEntries(indicators.map((one) => [one.name, one.title])) };
  const looks = kinds.map((kind) => ({ ...kind, size: kind.shape === kinds[0].shape ? 2.4 : 4.2 }));
  let axis = report.indicators.by ?? "score";

  // What a token is, line by line.
  function* told(i) {
    yield ["id", thousands(column.id[i])];
    yield ["kind", kinds[column.kind[i]].title + (column.dark[i] ? ", dark" : "")];
    if (data.code("side", i) && report.grades.sides.length > 1) yield ["by the row of", { both: "both matrices" }[data.code("side", i)] ?? `the ${data.code("side", i)}`];
    if (!Number.isNaN(column.score[i])) yield ["score", four(column.score[i])];
    yield ["norm", four(column.norm[i])];
    if ("count" in column) yield ["occurrences", thousands(column.count[i])];
    if (column.p_max?.[i] >= 0) yield ["P_max", `${four(column.p_max[i])}${column.verified[i] ? ", verified" : ""}`];
    if (axis in column && axis !== "score" && axis !== "id") yield [titles[axis], four(column[axis][i])];
    if (column.black_hole[i] > 0)
      yield ["black hole", `${thousands(column.black_hole[i])}, with ${thousands(column.population[i])} tokens`];
  }
  const describe = (i) => [name(i), ...Array.from(told(i), ([what, value]) => `${what} ${value}`)];

  // Filters ----------------------------------------------------------------------------------------------------------

  const filters = $("filters");
  const off = new Set(); // kinds that are not shown
  const weak = data.codes.grade.indexOf("weak");
  let shown = () => true;

  function filter() {
    const sought = $("search").value.trim().toLowerCase();
    const id = /^#?\d+$/.test(sought) ? Number(sought.replace("#", "")) : -1;
    const [which, script, hole] = [$("which").value, $("script").value, Number($("hole").value)];
    const scriptCode = script ? data.codes.script.indexOf(script) : -1;
    const matches = (i) =>
      ["text", "witness"].some((one) => data.raw(one, i)?.toLowerCase().includes(sought)) || column.id[i] === id;
    const kept = new Uint8Array(data.n);
    let n = 0;
    for (let i = 0; i < data.n; i++) {
      kept[i] =
        !off.has(kinds[column.kind[i]].key) &&
        (which !== "dark" || column.dark[i]) &&
        (which !== "weak" || column.grade[i] === weak) &&
        (which !== "verified" || column.verified[i] === 1) &&
        (which !== "hole" || column.black_hole[i] > 0) &&
        (which !== "touching" || column.n_touching[i] > 0) &&
        (!script || column.script[i] === scriptCode) &&
        (!hole || column.black_hole[i] === hole) &&
        (!sought || matches(i));
      n += kept[i];
    }
    shown = (i) => kept[i];
    list.filter(shown);
    scatter.set({ visible: shown });
    lanes.set({ visible: shown });
    answers?.set({ visible: shown });
    frequency && frequency.set({ visible: shown });
    $("count").textContent =
      n === data.n ? `all ${thousands(n)} tokens` : `${thousands(n)} of ${thousands(data.n)} tokens, here and in the figure`;
  }

  function clear() {
    filters.reset();
    off.clear();
    for (const button of $("legend").children) button.setAttribute("aria-pressed", "true");
    filter();
  }

  function find(i) {
    if (!shown(i)) clear();
    list.reveal(i);
  }

  function listHole(number) {
    clear();
    $("hole").value = number;
    filter();
    $("tokens").scrollIntoView();
    $("hole").focus({ preventScroll: true });
  }

  let waiting;
  filters.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(filter, 120);
  });
  filters.addEventListener("submit", (event) => event.preventDefault());
  filters.addEventListener("reset", () => setTimeout(filter));
  for (const button of $("legend").children)
    button.addEventListener("click", () => {
      const on = off.delete(button.dataset.kind);
      if (!on) off.add(button.dataset.kind);
      button.setAttribute("aria-pressed", on);
      filter();
    });

  // The list ---------------------------------------------------------------------------------------------------------

  const numeric = (key, title = titles[key] ?? key, falling = true) => ({
    key,
    title,
    numeric: true,
    falling,
    less: (i, j) => column[key][i] - column[key][j],
    missing: (i) => Number.isNaN(column[key][i]) || (column[key][i] < 0 && !data.floats.includes(key)),
    show: (cell, i) => {
      const value = column[key][i];
      cell.append(data.floats.includes(key) ? four(value) : value < 0 ? "" : thousands(value));
    },
  });
  const textual = (key, title) => ({
    key,
    title,
    less: (i, j) => (data.raw(key, i) < data.raw(key, j) ? -1 : data.raw(key, i) > data.raw(key, j) ? 1 : 0),
    missing: (i) => data.raw(key, i) === null,
    show: (cell, i) => {
      const text = data.safe(key, i);
      if (text !== null) cell.append(make("bdi", { className: "token", textContent: cut(text, 120) }));
      else if (key === "text") cell.append(make("span", { className: "soft", textContent: "no text" }));
    },
  });
  // Floats are rounded in this page, so the surest first is an order that comes with them.
  const scoreColumn = { ...numeric("score"), less: (i, j) => column.rank[j] - column.rank[i] };
  const kindColumn = {
    key: "kind",
    title: "kind",
    less: (i, j) => column.kind[j] - column.kind[i],
    show: (cell, i) => {
      cell.className = "nowrap";
      cell.append(mark(kinds[column.kind[i]]), ` ${kinds[column.kind[i]].title}`);
    },
  };
  const columnsNow = () => [
    numeric("id", "id", false),
    textual("text", "token"),
    kindColumn,
    scoreColumn,
    numeric("norm", "norm", false),
    ...(axis === "score" || axis === "id" ? [] : [numeric(axis)]),
    numeric("population", "tokens with this row"),
    numeric("black_hole", "black hole", false),
    numeric("n_touching", "touching"),
    ...("count" in column ? [numeric("count", "occurrences")] : []),
    ...("p_max" in column ? [numeric("p_max", "P_max")] : []),
    textual("witness", "a text with it"),
  ];

  function card(i) {
    const rows = [...told(i)].map(([what, value]) => [what, value]);
    const texts = { text: "token", witness: "a text with it" };
    for (const [key, title] of Object.entries(texts)) {
      const text = data.safe(key, i);
      if (text !== null) rows.push([title, make("bdi", { className: "token", textContent: cut(text, 4000) })]);
    }
    for (const key of data.columns) {
      if (key in texts || ["id", "score", "norm", "black_hole", "dark", "p_max", "verified", "count", axis].includes(key)) continue;
      const value = key in column && data.floats.includes(key) ? four(column[key][i]) : data.value(key, i);
      if (value !== null && value !== "") rows.push([titles[key] ?? key.replaceAll("_", " "), cut(String(value), 400)]);
    }
    const all = make("dl", { className: "card" });
    for (const [what, value] of rows) all.append(make("dt", { textContent: what }), make("dd", {}, value));
    const there = make("button", { type: "button", textContent: "Show it in the figure" });
    there.addEventListener("click", () => {
      $("glance").scrollIntoView();
      $("scatter").focus({ preventScroll: true });
      scatter.point(i, true);
    });
    const buttons = make("p", { className: "controls buttons" }, there);
    if (column.black_hole[i] > 0) {
      const members = make("button", { type: "button", textContent: "List its black hole" });
      members.addEventListener("click", () => listHole(column.black_hole[i]));
      buttons.append(members);
    }
    return make("div", {}, all, buttons);
  }

  const list = new List($("list"), $("pager"), {
    columns: columnsNow(),
    n: data.n,
    open: card,
    sorted: { key: "score", falling: true },
  });
  list.update();

  // Figures ----------------------------------------------------------------------------------------------------------

  const scatter = new Plane($("scatter"), {
    label: `${thousands(data.n)} tokens by norm and indicator; the table of kinds below has their medians. Arrow keys go from token to token by falling score, Enter finds it in the list.`,
    looks,
    describe,
    choose: find,
    hint: "click: find it in the list",
  });
  // The same, kind by kind: each in a lane of its own, spread out in it so that marks part.
  const there = kinds.filter((_, place) => column.kind.includes(place));
  const lanes = new Plane($("lanes"), {
    label: "The same indicator, kind by kind; the table of kinds below has their medians.",
    looks,
    describe,
    choose: find,
    hint: "click: find it in the list",
  });
  // What the model itself said, where it was asked.
  const answers =
    report.verified &&
    new Plane($("answers"), {
      label: `${thousands(report.verified.n_asked)} tokens by indicator and by the largest probability that the model gave them.`,
      looks,
      describe,
      choose: find,
      hint: "click: find it in the list",
    });
  // How often each token occurs in a corpus, where one was counted; colours and shapes are grades.
  const graded = { untrained: ["unreachable", "#E69F00", "#E69F00"], weak: ["weak", "#000000", "#F0E442"], trained: ["reachable", "#0072B2", "#56B4E9"] };
  const frequency =
    "count" in column &&
    new Plane($("frequency"), {
      label: `${thousands(data.n)} tokens by indicator and by how often each occurs in a corpus.`,
      looks: data.codes.grade.map((grade) => {
        const [shape, light, dark] = graded[grade];
        return { shape: kinds.find((kind) => kind.key === shape).shape, light, dark, size: grade === "trained" ? 2 : 4.2 };
      }),
      describe,
      choose: find,
      hint: "click: find it in the list",
    });
  const occurrences = frequency && column.count.map((count) => Math.max(count, 0.5)); // 0 has no place on a log axis
  const laneOf = kinds.map((kind) => there.indexOf(kind));
  const lane = Float32Array.from(column.kind, (place, i) => laneOf[place] + (((i * 0.618034) % 1) - 0.5) * 0.7);
  for (const key of [...indicators.map((one) => one.name), "score", "id"])
    $("indicator").append(make("option", { value: key, textContent: titles[key] }));
  $("indicator").value = axis;

  function axes() {
    const { by, threshold } = report.indicators;
    const ends = {
      score: [[threshold === null ? null : data.dark_from, "dark from here"]],
      [by]: [[threshold, "dark up to here"], [report.grades.sides.at(-1).weak_up_to, "weak up to here"]],
    };
    const marks = (ends[axis] ?? []).filter(([at]) => at !== null).map(([at, title]) => ({ axis: "x", at, title }));
    const both = {
      x: { values: column[axis], title: titles[axis], log: $("log-x").checked },
      look: column.kind,
      filled: column.dark,
      route: list.order(),
      marks,
    };
    scatter.set({ ...both, y: { values: column.norm, title: "norm of the row", log: $("log-y").checked } });
    answers?.set({
      ...both,
      y: { values: column.p_max, title: "P_max", log: true },
      filled: column.verified,
      marks: [...marks, { axis: "y", at: report.verified.thresholds.all, title: "verified below" }],
    });
    frequency && frequency.set({
      ...both,
      y: { values: occurrences, title: "occurrences (0.5: none)", log: true },
      look: column.grade,
      filled: null,
    });
    lanes.set({ ...both, y: { values: lane, title: "", names: there.map((kind) => kind.title) } });
  }
  $("indicator").addEventListener("change", () => {
    axis = $("indicator").value;
    if (!columnsNow().some((one) => one.key === list.sorted.key)) list.sorted = { key: "score", falling: true };
    $("log-x").checked = wide(column[axis]);
    list.setColumns(columnsNow());
    axes();
  });
  $("log-x").addEventListener("change", axes);
  $("log-y").addEventListener("change", axes);
  $("log-x").checked = wide(column[axis]);
  axes();

  // Of a mark that stands for so many tokens, beside so many others.
  const radius = (n, others) => Math.min(26, 3 + 0.8 * Math.sqrt(n)) * Math.min(1, 15 / Math.sqrt(others));
  const later = new Map(); // figures that are made when they come into sight
  later.set($("spectrum"), () => spectrum(report.black_holes, listHole, name, place));
  const { edges, cluster } = report.neighbours ?? {};
  if (edges?.length) {
    $("graph-figure").hidden = false;
    later.set($("graph"), () => graph(edges.map((edge) => edge.map(place)), { column, looks, describe, find, radius }));
  }
  if (cluster?.map?.length) {
    $("map-figure").hidden = false;
    later.set($("map"), () => map(cluster.map, { place, column, looks, describe, find, radius }));
  }
  const draw = (box) => {
    later.get(box)?.();
    later.delete(box);
    sight.unobserve(box);
  };
  const sight = new IntersectionObserver((seen) => {
    for (const { isIntersecting, target } of seen) if (isIntersecting) draw(target);
  });
  for (const box of later.keys()) if (box) sight.observe(box);

  // To take along ----------------------------------------------------------------------------------------------------

  const file = (report.source.asked.split(/[\\/]/).filter(Boolean).pop() ?? "scan").replace(/[^\w.-]+/g, "-");
  const made = {
    csv: () => [tokensAsCsv(data, list.rows), `${file}-tokens.csv`, "text/csv"],
    json: () => [tokensAsJson(data, list.rows), `${file}-tokens.json`, "application/json"],
    report: () => [`${JSON.stringify(report, null, 2)}\n`, `${file}-report.json`, "application/json"],
  };
  for (const button of document.querySelectorAll("[data-take]"))
    button.addEventListener("click", async () => {
      const [how, what] = button.dataset.take.split("-");
      const [text, called, type] = made[what]();
      const said = $(what === "report" ? "taken-report" : "taken");
      if (how === "copy") said.textContent = (await copy(text)) ? "copied" : "this browser does not let a page copy: save it";
      else save(text, called, type);
    });
  for (const button of document.querySelectorAll("[data-hole]"))
    button.addEventListener("click", () => listHole(Number(button.dataset.hole)));

  addEventListener("beforeprint", () => {
    for (const box of [...later.keys()]) if (box) draw(box);
    const most = Number(document.body.dataset.printed);
    list.draw(most);
    $("printed").textContent = list.rows.length - list.at > most ? `, of which ${thousands(most)} are printed` : "";
  });
  addEventListener("afterprint", () => {
    list.draw();
    $("printed").textContent = "";
  });
  $("count").textContent = `all ${thousands(data.n)} tokens`;
}

function spectrum(holes, choose, name, place) {
  if (!holes.length) return;
  const plane = new Plane($("spectrum"), {
    label: `Populations of ${thousands(holes.length)} black holes by rank, from ${thousands(holes[0].population)} down to ${thousands(holes.at(-1).population)}; the table below lists them.`,
    looks: [{ shape: "M1,0A1,1,0,1,1,-1,0A1,1,0,1,1,1,0Z", light: "#0072B2", dark: "#56B4E9", size: 4.5 }],
    describe: (i) => [`black hole ${thousands(i + 1)}`, `${thousands(holes[i].population)} tokens`, `norm ${four(holes[i].norm)}`, `first: ${name(place(holes[i].token_ids[0]))}`],
    choose: (i) => choose(i + 1),
    hint: "click: list its tokens",
  });
  plane.set({
    x: { values: Float32Array.from(holes, (_, i) => i + 1), title: "rank", log: holes.length > 1 },
    y: { values: Float32Array.from(holes, (hole) => hole.population), title: "tokens in the black hole", log: true },
    look: new Uint8Array(holes.length),
    route: holes.map((_, i) => i),
    stems: true,
  });
}

// Rows as nodes: black holes and what touches them, laid out by forces.
function graph(edges, { column, looks, describe, find, radius }) {
  const rows = [...new Set(edges.flat())].filter((i) => i >= 0);
  const node = new Map(rows.map((i, at) => [i, at]));
  const nodes = rows.map((i) => ({ r: radius(column.population[i], rows.length) }));
  const pairs = edges.filter((edge) => edge.every((i) => node.has(i))).map((edge) => edge.map((i) => node.get(i)));
  const links = pairs.map(([source, target]) => ({ source, target }));
  const forces = d3
    .forceSimulation(nodes)
    .force("link", d3.forceLink(links).distance(({ source, target }) => 18 + source.r + target.r))
    .force("charge", d3.forceManyBody().strength(-40).distanceMax(400))
    .force("apart", d3.forceCollide((one) => one.r + 1.5))
    .force("x", d3.forceX().strength(0.06))
    .force("y", d3.forceY().strength(0.06))
    .stop();
  const plane = new Plane($("graph"), {
    label: `Graph of ${thousands(rows.length)} rows that touch, with ${thousands(pairs.length)} edges; the table below counts them by degree.`,
    looks,
    describe: (at) => describe(rows[at]),
    choose: (at) => find(rows[at]),
    hint: "click: find it in the list",
  });
  const show = () =>
    plane.set({
      x: { values: Float32Array.from(nodes, (one) => one.x), title: "" },
      y: { values: Float32Array.from(nodes, (one) => one.y), title: "" },
      look: rows.map((i) => column.kind[i]),
      size: nodes.map((one) => one.r),
      edges: pairs,
      equal: true,
      bare: true,
      route: rows.map((_, at) => at).sort((a, b) => nodes[b].r - nodes[a].r),
    });
  let left = 220;
  const settle = (time) => {
    const until = performance.now() + time;
    while (left > 0 && performance.now() < until) {
      forces.tick();
      left -= 1;
    }
    if (left > 0) setTimeout(() => settle(time));
    if (left <= 0 || !still.matches) show();
  };
  settle(printing ? Infinity : 14);
}

function map(places, { place, column, looks, describe, find, radius }) {
  const rows = places.map(([id]) => place(id));
  const plane = new Plane($("map"), {
    label: `Map of ${thousands(rows.length)} rows of the cluster on their first two principal components.`,
    looks,
    describe: (at) => describe(rows[at]),
    choose: (at) => find(rows[at]),
    hint: "click: find it in the list",
  });
  plane.set({
    x: { values: Float32Array.from(places, ([, x]) => x), title: "component 1" },
    y: { values: Float32Array.from(places, ([, , y]) => y), title: "component 2" },
    look: rows.map((i) => column.kind[i]),
    size: rows.map((i) => radius(column.population[i], rows.length) * 0.7),
    equal: true,
    route: rows.map((_, at) => at).sort((a, b) => column.population[rows[b]] - column.population[rows[a]]),
  });
}

// Whether values want a logarithmic axis.
function wide(values) {
  let low = Infinity;
  let high = -Infinity;
  for (const value of values)
    if (!Number.isNaN(value)) {
      if (value < low) low = value;
      if (value > high) high = value;
    }
  return low > 0 && high / low > 8;
}

function cut(text, length) {
  return text.length > length ? `${text.slice(0, length)}… and ${thousands(text.length - length)} characters more` : text;
}

function mark(kind) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("class", `mark kind-${kind.key}`);
  svg.setAttribute("viewBox", "-1.6 -1.6 3.2 3.2");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", kind.shape);
  svg.append(path);
  return svg;
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = make("textarea", { value: text, className: "unseen" });
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
}

function save(text, called, type) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  make("a", { href: url, download: called }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

open()
  .then(() => {
    performance.mark("usable");
    document.documentElement.dataset.ready = "";
  })
  .catch((error) => {
    $("trouble").hidden = false;
    $("trouble").textContent = `The figures and the whole list did not open in this browser (${error.message}); it needs to be from 2023 or later. What is printed below is complete.`;
    throw error;
  });
