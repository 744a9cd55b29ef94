// Three charts by uPlot: watts stacked with the meter's line, what is served, and the trade-off.

import { number, UNKNOWN } from "./format.js";
import { nameOf } from "./tables.js";

const ACCOUNTS = ["active", "idle", "unattributed", "other"];
const HEIGHT = 240;
const KEPT_S = 900;

const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const axis = (unit) => ({
  stroke: css("--soft"), grid: { stroke: css("--line"), width: 1 }, ticks: { stroke: css("--line") }, size: 64,
  ...(unit === null ? {} : { values: (_, ticks) => ticks.map((tick) => number(tick, unit)) }),
});
const widthOf = (node) => Math.max(240, node.clientWidth);

class Chart {
  constructor(id, options) {
    this.node = document.querySelector(id);
    this.options = options;
    this.data = null;
    this.plot = null;
    new ResizeObserver(() => this.plot?.setSize({ width: widthOf(this.node), height: HEIGHT })).observe(this.node);
  }

  show(data, says) {
    this.data = data;
    if (this.plot) this.plot.setData(data);
    else this.plot = new uPlot({ width: widthOf(this.node), height: HEIGHT, ...this.options(data) }, data, this.node);
    document.querySelector(`#${this.node.id}-says`).textContent = says;
  }

  /** In other colours, or of another shape. */
  redraw() {
    this.plot?.destroy();
    this.plot = null;
    if (this.data) this.show(this.data, document.querySelector(`#${this.node.id}-says`).textContent);
  }
}

const power = new Chart("#power", () => ({
  series: [
    {},
    ...ACCOUNTS.map((name, place) => ({
      label: name, stroke: css(`--c${place + 1}`), fill: `${css(`--c${place + 1}`)}55`, width: 1, points: { show: false },
      value: (plot, _, series, at) => number(at === null ? null : share(plot, series, at), "W"),
    })),
    { label: "meter", stroke: css("--meter"), dash: [8, 6], width: 2, points: { show: false },
      value: (_, value) => number(value, "W") },
  ],
  bands: ACCOUNTS.slice(1).map((_, place) => ({ series: [place + 2, place + 1], fill: `${css(`--c${place + 2}`)}55` })),
  axes: [axis(null), axis("W")],
  scales: { y: { range: (_, least, most) => [0, Math.max(1e-3, most * 1.05)] } },
}));

/** Of a stacked series, its own part. */
const share = (plot, series, at) => plot.data[series][at] - (series > 1 ? plot.data[series - 1][at] : 0);

const served = new Chart("#served", () => ({
  series: [
    {},
    { label: "tokens/s", stroke: css("--c1"), width: 2, points: { show: false }, value: (_, v) => number(v, "tok/s") },
    { label: "requests/s", stroke: css("--c2"), width: 2, scale: "requests", points: { show: false },
      value: (_, v) => number(v, "req/s") },
    { label: "errors/s", stroke: css("--bad"), width: 2, scale: "requests", points: { show: false },
      value: (_, v) => number(v, "req/s") },
  ],
  axes: [axis(null), axis(""), { ...axis(""), scale: "requests", side: 1, grid: { show: false } }],
  scales: { y: { range: fromZero }, requests: { range: fromZero } },
}));

function fromZero(_plot, _least, most) {
  return [0, Math.max(1, most * 1.05)];
}

let names = [];
const pareto = new Chart("#pareto", (data) => ({
  mode: 2,
  legend: { markers: { width: 2 } },
  series: [
    {},
    ...names.map((name, place) => ({
      label: name, stroke: css(`--c${(place % 5) + 1}`), fill: css(`--c${(place % 5) + 1}`), paths: point, width: 0,
      value: (plot, _, series) => `${number(data[series][0][0], "J")}, ${number(data[series][1][0], "s")}`,
    })),
  ],
  scales: { x: { time: false, range: fromZeroOf(0) }, y: { range: fromZeroOf(1) } },
  axes: [{ ...axis("J"), label: "J/token", labelSize: 20, size: 40 }, axis("s")],
  cursor: { show: false },
}));

const fromZeroOf = (side) => () => {
  const values = pareto.data.slice(1).flatMap((one) => one[side]);
  return [0, Math.max(...values) * 1.15];
};

function point(plot, series) {
  const [xs, ys] = plot.data[series];
  const size = 6 * devicePixelRatio;
  plot.ctx.save();
  plot.ctx.fillStyle = plot.series[series].fill();
  for (const [place, x] of xs.entries()) {
    plot.ctx.beginPath();
    plot.ctx.arc(plot.valToPos(x, "x", true), plot.valToPos(ys[place], "y", true), size, 0, 2 * Math.PI);
    plot.ctx.fill();
  }
  plot.ctx.restore();
  return null;
}

const history = { served: [], power: [] };

export function showHistory(data) {
  history.served = data.served;
  history.power = data.power;
  draw();
}

export function addFrame(frame) {
  history.served.push(frame.served);
  if (frame.power) history.power.push(frame.power);
  for (const series of [history.served, history.power]) {
    while (series.length && series[0].at < frame.served.at - KEPT_S) series.shift();
  }
  draw();
}

function draw() {
  if (document.hidden) return;
  if (history.power.length) drawPower();
  if (history.served.length) drawServed();
}

function drawPower() {
  const columns = [history.power.map((one) => one.at)];
  let below = history.power.map(() => 0);
  for (const name of ACCOUNTS) {
    below = below.map((sum, place) => sum + (history.power[place].watts[name] ?? 0));
    columns.push(below);
  }
  columns.push(history.power.map((one) => one.meter_watts));
  const last = history.power.at(-1);
  power.show(columns, `${ACCOUNTS.map((name) => `${name} ${number(last.watts[name], "W")}`).join(", ")}, meter ` +
    `${number(last.meter_watts, "W")}`);
}

function drawServed() {
  const column = (key) => history.served.map((one) => one[key]);
  const last = history.served.at(-1);
  served.show([column("at"), column("output_tokens_per_s"), column("requests_per_s"), column("errors_per_s")],
    `${number(last.output_tokens_per_s, "tokens")} and ${number(last.requests_per_s, "requests")} each second`);
}

export function showTradeOff(table) {
  const rows = table.rows.filter((row) => row.values.output_token_j?.value && row.values.itl_p95_s?.value);
  const node = document.querySelector("#pareto");
  node.parentElement.hidden = rows.length === 0;
  if (!rows.length) return;
  const found = rows.map(nameOf);
  const data = [null, ...rows.map((row) => [[row.values.output_token_j.value], [row.values.itl_p95_s.value]])];
  const says = rows.map((row) => `${nameOf(row)}: ${number(row.values.output_token_j.value, "J")} a token, ` +
    `${number(row.values.itl_p95_s.value, "s")}`).join("; ");
  if (found.join() !== names.join()) {
    names = found;
    pareto.plot?.destroy();
    pareto.plot = null;
  }
  pareto.show(data, says || UNKNOWN);
}

export function redrawAll() {
  for (const chart of [power, served, pareto]) chart.redraw();
}
