// A request by its id: when what happened, and its joules.

import { element, number, UNKNOWN } from "./format.js";
import { getJson } from "./stream.js";

export function setUpTrace() {
  const form = document.querySelector("#trace");
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    trace(document.querySelector("#trace-id").value.trim());
  });
}

export async function trace(id) {
  const shown = document.querySelector("#traced");
  shown.replaceChildren(element("p", "…"));
  try {
    shown.replaceChildren(...view(await getJson(`/api/requests/${encodeURIComponent(id)}`)));
  } catch (problem) {
    shown.replaceChildren(element("p", problem.message, { class: "problem" }));
  }
}

function view(found) {
  const facts = [found.endpoint, `${found.model}:${found.variant}`, found.adapter !== "none" ? found.adapter : "",
    found.engine, found.tenant, found.outcome, `${found.prompt_tokens ?? UNKNOWN} prompt tokens`,
    `${found.output_tokens ?? UNKNOWN} output tokens`];
  return [element("p", facts.filter(Boolean).join(" · ")), timeline(found), energy(found)];
}

function timeline(found) {
  const steps = [["waited for admission", found.queue_s], ["to the first token", found.ttft_s],
    ["to the last byte", found.duration_s]].filter(([, seconds]) => seconds !== null && seconds !== undefined);
  const longest = Math.max(...steps.map(([, seconds]) => seconds), 1e-9);
  const made = element("div", "", { class: "timeline" });
  for (const [name, seconds] of steps) {
    const bar = element("progress", "", { max: String(longest), value: String(seconds), "aria-label": name });
    made.append(element("span", name), bar, element("span", number(seconds, "s")));
  }
  return made;
}

function energy(found) {
  if (!found.energy) return element("p", "Its joules are not final yet: its windows are still open.");
  const of = found.energy;
  const parts = [`${number(of.joules, "J")}: ${number(of.prefill_joules, "J")} for the prompt, ` +
    `${number(of.decode_joules, "J")} for the output`, `by ${of.method}, confidence ${of.confidence}`, `scope ${of.scope}`];
  if (of.co2e_grams !== null) parts.push(`${number(of.co2e_grams, "g")} CO2e`);
  if (!of.whole) parts.push("not the whole of it was accounted");
  return element("p", parts.join(" · "));
}
