// Numbers as people read them. Unknown is a dash, never 0.

export const UNKNOWN = "—";
const PREFIXES = [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"], [1, ""], [1e-3, "m"], [1e-6, "µ"], [1e-9, "n"]];

/** Three significant digits, with an SI prefix where one helps. */
export function number(value, unit = "") {
  if (value === null || value === undefined || !Number.isFinite(value)) return UNKNOWN;
  if (value === 0) return `0${unit ? ` ${unit}` : ""}`;
  const [size, prefix] = PREFIXES.find(([least]) => Math.abs(value) >= least * 0.9995) ?? PREFIXES.at(-1);
  const scaled = value / size;
  const digits = Math.abs(scaled) >= 100 ? 0 : Math.abs(scaled) >= 10 ? 1 : 2;
  return `${scaled.toFixed(digits)}${prefix || unit ? ` ${prefix}${unit}` : ""}`;
}

export function percent(value, digits = 0) {
  return value === null || value === undefined ? UNKNOWN : `${(100 * value).toFixed(digits)} %`;
}

const UNITS = { s: "s", J: "J", W: "W", bytes: "B", "tokens/s": "tok/s", "requests/s": "req/s", g: "g", bits: "bit" };

/** A cell of the efficiency table. */
export function cell(found) {
  if (!found || found.value === null) return UNKNOWN;
  if (found.unit === "ratio") return found.value.toFixed(found.value >= 10 ? 1 : 3);
  return number(found.value, UNITS[found.unit] ?? "");
}

export function duration(seconds) {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}

/** An element with text, so that nothing from outside ever becomes markup. */
export function element(name, text = "", attributes = {}) {
  const made = document.createElement(name);
  made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}
