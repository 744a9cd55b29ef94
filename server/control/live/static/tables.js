// The table of configurations, the sentence above it, and the engines.

import { cell, duration, element, number, percent } from "./format.js";
import { getJson } from "./stream.js";

const COLUMNS = ["output_token_j", "itl_p95_s", "ttft_p95_s", "output_tokens_per_s", "memory_bytes", "mcr_ratio",
  "quality_ratio", "active_w", "size_bytes", "weight_bits"];
const BRIEF = {
  output_token_j: "J/token", itl_p95_s: "p95 ITL", ttft_p95_s: "p95 TTFT", output_tokens_per_s: "Tokens/s",
  memory_bytes: "Memory", mcr_ratio: "MCR", quality_ratio: "Quality", active_w: "Power", size_bytes: "Size",
  weight_bits: "Bits/weight",
};

let sortedBy = "output_token_j";
let descending = false;
let newest = null;

export const nameOf = (row) => `${row.group.model}:${row.group.variant}`;

const valueOf = (row, key) => row.values[key]?.value ?? null;

function ordered(rows) {
  const known = rows.filter((row) => valueOf(row, sortedBy) !== null);
  const rest = rows.filter((row) => valueOf(row, sortedBy) === null);
  known.sort((a, b) => (descending ? -1 : 1) * (valueOf(a, sortedBy) - valueOf(b, sortedBy)));
  return [...known, ...rest];
}

export function showTable(table) {
  newest = table;
  const measures = new Map(table.measures.map((one) => [one.key, one]));
  const columns = COLUMNS.filter((key) => measures.has(key));
  const head = document.querySelector("#table thead");
  const focused = document.activeElement?.dataset?.column;
  const line = element("tr");
  line.append(element("th", "Configuration", { scope: "col" }));
  for (const key of columns) line.append(heading(key, measures.get(key)));
  head.replaceChildren(line);
  if (focused) head.querySelector(`[data-column="${focused}"]`)?.focus();
  document.querySelector("#table tbody").replaceChildren(...ordered(table.rows).map((row) => rowOf(row, columns)));
  const seconds = table.seconds === null ? "" : `Over the last ${duration(table.seconds)}. `;
  document.querySelector("#table-caption").textContent =
    `${seconds}Small numbers are ranks, 1 is best. ★ is on the Pareto front.`;
  document.querySelector("#answer").textContent = answer(table.rows);
}

function heading(key, measure) {
  const made = element("th", "", { scope: "col", title: measure.title });
  const button = element("button", BRIEF[key], { type: "button", "data-column": key });
  if (key === sortedBy) made.setAttribute("aria-sort", descending ? "descending" : "ascending");
  button.addEventListener("click", () => {
    descending = key === sortedBy ? !descending : measure.better === "higher";
    sortedBy = key;
    showTable(newest);
  });
  made.append(button);
  return made;
}

function rowOf(row, columns) {
  const line = element("tr");
  line.append(element("th", `${nameOf(row)}${row.pareto ? " ★" : ""}`, { scope: "row" }));
  for (const key of columns) {
    const found = row.values[key];
    const made = element("td", cell(found));
    if (!found || found.value === null) made.classList.add("absent");
    if (found?.why_absent) made.title = found.why_absent;
    if (found?.note) made.title = found.note;
    if (found?.rank) {
      if (found.rank === 1) made.classList.add("first");
      made.append(" ", element("span", String(found.rank), { class: "rank", "aria-label": `rank ${found.rank}` }));
    }
    line.append(made);
  }
  return line;
}

/** Which one is cheapest, and what that costs: one sentence, from the table. */
function answer(rows) {
  const known = rows.filter((row) => valueOf(row, "output_token_j") !== null);
  if (!known.length) return "No configuration had traffic and a meter in the last minute.";
  known.sort((a, b) => valueOf(a, "output_token_j") - valueOf(b, "output_token_j"));
  const [best] = known;
  const dearest = known.at(-1);
  const parts = [`${nameOf(best)} is cheapest: ${cell(best.values.output_token_j)} a token`];
  if (known.length > 1) {
    const less = 1 - valueOf(best, "output_token_j") / valueOf(dearest, "output_token_j");
    parts.push(`${percent(less)} less than ${nameOf(dearest)} (${cell(dearest.values.output_token_j)})`);
    parts.push(`p95 inter-token latency ${against(best, dearest, "itl_p95_s")}`);
  }
  if (valueOf(best, "quality_ratio") !== null) {
    parts.push(`quality ${percent(valueOf(best, "quality_ratio"), 1)} of the reference's`);
  }
  const estimated = best.energy_scopes.includes("estimated") ? " Joules are estimated, not measured." : "";
  return `${parts.join("; ")}.${estimated}`;
}

const against = (one, other, key) => `${cell(one.values[key])} against ${cell(other.values[key])}`;

export function showEngines(engines) {
  const open = new Set([...document.querySelectorAll("#engines details[open]")].map((one) => one.dataset.name));
  document.querySelector("#engines").replaceChildren(...engines.map((one) => engineOf(one, open.has(one.name))));
}

function engineOf(engine, open) {
  const made = element("div", "", { class: "engine" });
  const line = element("p");
  line.append(element("strong", engine.name), " ", element("span", engine.state, { class: `badge ${engine.state}` }));
  const facts = [`for ${duration(engine.since_s)}`, engine.device, memory(engine), restarts(engine)];
  line.append(` ${facts.filter(Boolean).join(" · ")}`);
  made.append(line);
  if (engine.problem) made.append(element("p", engine.problem, { class: "problem" }));
  const details = element("details", "", { "data-name": engine.name });
  details.append(element("summary", "Last log lines"));
  const lines = element("pre", "…");
  details.append(lines);
  const read = async () => {
    const found = await getJson(`/api/engines/log?lines=40&name=${encodeURIComponent(engine.name)}`);
    lines.textContent = found.lines?.join("\n") || "This engine writes no log here.";
  };
  const tell = (problem) => { lines.textContent = problem.message; };
  details.addEventListener("toggle", () => { if (details.open) read().catch(tell); });
  details.open = open;
  made.append(details);
  return made;
}

const memory = (engine) => (engine.memory_bytes === null ? "" : number(engine.memory_bytes, "B"));
const restarts = (engine) => (engine.restarts ? `${engine.restarts} restarts` : "");

/** `model:variant`, and adapters with each variant that has them. */
export function configurationsOf(status) {
  const found = new Set(status.engines.filter((one) => one.task === "generate").map((one) => `${one.model}:${one.variant}`));
  for (const engine of status.engines) for (const name of engine.adapters) found.add(`${name}:${engine.variant}`);
  return [...found];
}
