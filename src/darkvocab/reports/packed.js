// Report and tokens as `darkvocab.reports.atlas.pack` leaves them in the page.

async function unpack(text) {
  const letters = atob(text);
  const zipped = new Uint8Array(letters.length);
  for (let i = 0; i < letters.length; i++) zipped[i] = letters.charCodeAt(i);
  const stream = new Blob([zipped]).stream().pipeThrough(new DecompressionStream("gzip"));
  const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  let at = 4 + new DataView(bytes.buffer).getUint32(0, true);
  const header = JSON.parse(decoder.decode(bytes.subarray(4, at)));
  const { n } = header;

  // The first bytes of all values, then the second ones, the third, the fourth.
  const column = (Type) => {
    const mixed = new Uint8Array(4 * n);
    for (let plane = 0; plane < 4; plane++)
      for (let i = 0, to = plane; i < n; i++, to += 4) mixed[to] = bytes[at++];
    return new Type(mixed.buffer);
  };
  const columns = {};
  for (const name of header.names) columns[name] = column(header.floats.includes(name) ? Float32Array : Int32Array);

  const lengths = header.texts.map(() => column(Int32Array));
  const all = decoder.decode(bytes.subarray(at));
  const starts = header.texts.map(() => new Uint32Array(n));
  for (let i = 0, start = 0; i < n; i++)
    for (let k = 0; k < lengths.length; k++) {
      starts[k][i] = start;
      start += Math.max(lengths[k][i], 0);
    }
  const raw = (name, i) => {
    const k = header.texts.indexOf(name);
    return lengths[k][i] < 0 ? null : all.slice(starts[k][i], starts[k][i] + lengths[k][i]);
  };
  const code = (name, i) => header.codes[name][columns[name][i]] ?? null;
  const whole = (name, i) => (columns[name][i] < 0 ? null : columns[name][i]);
  const real = (name, i) => (Number.isNaN(columns[name][i]) ? null : Number(columns[name][i].toPrecision(5)));
  const hex = (i) => {
    const text = raw("bytes", i);
    return text === null ? null : Array.from(text, (c) => c.charCodeAt(0).toString(16).padStart(2, "0")).join("");
  };

  return {
    ...header,
    column: columns,
    raw,
    code,
    hex,
    // A text without characters that could hide or turn others round; null where there is none.
    safe: (name, i) => header.shown[name][i] ?? raw(name, i),
    // A value of a column of the tokens' table as JSON has it.
    value(name, i) {
      if (name === "bytes") return hex(i);
      if (name === "dark" || name === "verified") return columns[name][i] < 0 ? null : columns[name][i] === 1;
      if (header.texts.includes(name)) return raw(name, i);
      if (name in header.codes) return code(name, i);
      return header.floats.includes(name) ? real(name, i) : whole(name, i);
    },
  };
}

// The same rule as darkvocab's own CSV: texts are shown escaped, and none of them starts a formula.
function csvCell(value) {
  if (value === null) return "";
  if (typeof value !== "string") return String(value);
  const safe = /^[=+\-@]/.test(value) ? `'${value}` : value;
  return safe === "" || /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

function tokensAsCsv(data, rows) {
  const lines = [data.columns.map(csvCell).join(",")];
  for (const i of rows)
    lines.push(
      data.columns
        .map((name) => csvCell(name in data.shown ? data.safe(name, i) : data.value(name, i)))
        .join(","),
    );
  return lines.join("\n") + "\n";
}

function tokensAsJson(data, rows) {
  const objects = Array.from(rows, (i) =>
    JSON.stringify(Object.fromEntries(data.columns.map((name) => [name, data.value(name, i)]))),
  );
  return `[\n${objects.join(",\n")}\n]\n`;
}
