// What the scripts of all pages share.

const still = matchMedia("(prefers-reduced-motion: reduce)");
const night = matchMedia("(prefers-color-scheme: dark)");

function make(name, properties = {}, ...children) {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
}

function thousands(value) {
  return value.toLocaleString("en");
}

// A number for people: in full where that is short, else in powers of ten.
function short(value) {
  const size = Math.abs(value);
  if (value === 0 || (size >= 1e-4 && size < 1e7)) return value.toLocaleString("en", { maximumSignificantDigits: 6 });
  return value.toExponential().replace(/(\.\d{3})\d+/, "$1").replace("e+", "e");
}
