// The page: listens to the control port, and shows what it hears.

import { addFrame, redrawAll, showHistory, showTradeOff } from "./charts.js";
import { element, number, UNKNOWN } from "./format.js";
import { offer, setUpPlayground } from "./playground.js";
import { events, Refused, setKey } from "./stream.js";
import { configurationsOf, showEngines, showTable } from "./tables.js";
import { setUpTrace } from "./trace.js";

const THEME = "wattgate-theme";
const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 10_000;
const STALE_MS = 5_000;

const now = { served: null, power: null, status: null, heard: 0 };

function showNow() {
  const { served, power, status } = now;
  const watts = power?.meter_watts ?? null;
  const tokens = served?.output_tokens_per_s ?? 0;
  const carbon = status?.carbon ?? null;
  const grams = watts !== null && carbon ? (watts / 1000) * carbon.grams_per_kwh * carbon.pue : null;
  const tiles = [
    ["Output tokens", number(served?.output_tokens_per_s, "tok/s"), ""],
    ["Requests", number(served?.requests_per_s, "req/s"), ""],
    ["In flight", served ? String(served.in_flight) : UNKNOWN, served?.queued ? `${served.queued} waiting` : ""],
    ["Power", number(watts, "W"), power ? "" : "no meter"],
    ["Power of requests", number(power?.watts.active, "W"), ""],
    ["Energy a token", number(power && tokens > 0 ? power.watts.active / tokens : null, "J"), "now, roughly"],
    ["CO2e", number(grams, "g/h"), carbon ? `${carbon.source}, ${carbon.grams_per_kwh} g/kWh` : "no intensity known"],
  ];
  document.querySelector("#now").replaceChildren(...tiles.map(([name, value, note]) => {
    const tile = element("div");
    const shown = element("dd", value);
    if (note) shown.append(" ", element("small", note));
    tile.append(element("dt", name), shown);
    return tile;
  }));
}

const HEARD = {
  history(data) {
    showHistory(data);
    now.served = data.served.at(-1) ?? null;
    now.power = data.power.at(-1) ?? null;
    showNow();
  },
  frame(data) {
    addFrame(data);
    now.served = data.served;
    now.power = data.power ?? now.power;
    if (now.power && data.served.at - now.power.at > 30) now.power = null;
    showNow();
  },
  status(data) {
    now.status = data;
    say(`${data.state}, ${data.workers} ${data.workers === 1 ? "worker" : "workers"}`, data.state);
    document.querySelector("#version").textContent = `version ${data.version}`;
    showEngines(data.engines);
    offer(configurationsOf(data));
    showNow();
  },
  table(data) {
    showTable(data);
    showTradeOff(data);
    document.documentElement.dataset.complete = "yes";
  },
};

function say(text, state) {
  const shown = document.querySelector("#state");
  shown.textContent = text;
  shown.className = state ?? "";
}

async function listen() {
  let pause = FIRST_PAUSE_MS;
  for (;;) {
    try {
      await events("/api/live", (name, data) => {
        pause = FIRST_PAUSE_MS;
        now.heard = performance.now();
        HEARD[name]?.(JSON.parse(data));
      });
    } catch (problem) {
      if (problem instanceof Refused) {
        await askForKey(problem.message);
        continue;
      }
    }
    say("no answer from the control plane; what stands here is old", "failed");
    await new Promise((done) => { setTimeout(done, pause); });
    pause = Math.min(2 * pause, LONGEST_PAUSE_MS);
  }
}

function askForKey(why) {
  const form = document.querySelector("#door");
  document.querySelector("#door-problem").textContent = sessionStorage.length ? why : "";
  form.hidden = false;
  document.querySelector("#key").focus();
  return new Promise((done) => {
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      setKey(document.querySelector("#key").value);
      form.hidden = true;
      done();
    }, { once: true });
  });
}

function setUpTheme() {
  const select = document.querySelector("#theme");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const use = () => {
    const chosen = select.value === "auto" ? (dark.matches ? "dark" : "light") : select.value;
    document.documentElement.dataset.theme = chosen;
    redrawAll();
  };
  select.value = localStorage.getItem(THEME) ?? "auto";
  select.addEventListener("change", () => { localStorage.setItem(THEME, select.value); use(); });
  dark.addEventListener("change", use);
  use();
}

setInterval(() => {
  if (now.heard && performance.now() - now.heard > STALE_MS) say("stale: nothing heard for some seconds", "failed");
}, 1000);
setUpTheme();
setUpTrace();
setUpPlayground();
showNow();
listen();
