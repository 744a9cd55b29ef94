// One prompt, two configurations, side by side: text, timings, joules.

import { element, number } from "./format.js";
import { events } from "./stream.js";
import { trace } from "./trace.js";

export function setUpPlayground() {
  document.querySelector("#playground").addEventListener("submit", (event) => {
    event.preventDefault();
    const sides = ["left", "right"].map((id) => document.querySelector(`#${id}`).value);
    const boxes = sides.map(box);
    document.querySelector("#answers").replaceChildren(...boxes.map((one) => one.node));
    boxes.forEach((one, place) => ask(sides[place], one));
  });
}

/** Keep what was chosen, as far as it is still served. */
export function offer(configurations) {
  for (const [place, id] of ["left", "right"].entries()) {
    const select = document.querySelector(`#${id}`);
    const chosen = select.value || configurations[Math.min(place, configurations.length - 1)];
    if ([...select.options].map((one) => one.value).join() === configurations.join()) continue;
    select.replaceChildren(...configurations.map((name) => element("option", name, { value: name })));
    if (configurations.includes(chosen)) select.value = chosen;
  }
}

function box(model) {
  const node = element("div", "", { class: "answered" });
  const figures = element("p", "…");
  const text = element("pre");
  node.append(element("h3", model), figures, text);
  return { node, figures, text };
}

async function ask(model, { node, figures, text }) {
  const id = `live-${crypto.getRandomValues(new Uint32Array(2)).join("-")}`;
  const body = {
    model, id, prompt: document.querySelector("#prompt").value,
    max_tokens: Number(document.querySelector("#max-tokens").value),
    key: document.querySelector("#client-key").value || null,
  };
  const asked = performance.now();
  let first = null;
  let usage = null;
  try {
    await events("/api/playground", (name, data) => {
      if (data === "[DONE]") return;
      const said = JSON.parse(data);
      if (said.error) throw new Error(said.error.message);
      const piece = said.choices?.[0]?.delta?.content ?? "";
      if (piece) {
        first ??= performance.now();
        text.textContent += piece;
      }
      usage = said.usage ?? usage;
    }, { body });
    figures.textContent = figuresOf(asked, first, usage);
    const more = element("button", "Trace", { type: "button" });
    more.addEventListener("click", () => {
      document.querySelector("#trace-id").value = id;
      trace(id);
      document.querySelector("#traced").scrollIntoView();
    });
    node.append(more);
  } catch (problem) {
    figures.textContent = problem.message;
    figures.className = "problem";
  }
}

function figuresOf(asked, first, usage) {
  const ended = performance.now();
  const tokens = usage?.completion_tokens ?? null;
  const parts = [`first token after ${number(first === null ? null : (first - asked) / 1e3, "s")}`,
    `all after ${number((ended - asked) / 1e3, "s")}`];
  if (tokens !== null && first !== null && tokens > 1) {
    parts.push(`${number(tokens / ((ended - first) / 1e3), "tok/s")}`);
  }
  const joules = usage?.wattgate?.energy_joules ?? null;
  parts.push(`${number(joules, "J")}${joules === null ? "" : " (provisional)"}`);
  return parts.join(" · ");
}
