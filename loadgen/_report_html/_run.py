"""The page of one run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any, Final

from loadgen._report import DASH, count, milliseconds
from loadgen._report_html._chart import Axis, Chart, Series
from loadgen._report_html._curve import curve_charts, curve_table
from loadgen._report_html._folder import RunFolder, joules_per_token
from loadgen._report_html._page import card, chart_card, document, paragraphs, section, table

__all__ = ["page"]

_MS: Final = 1000.0
_LATENCIES: Final = (
    ("Time to first token", "time_to_first_token_s"),
    ("Inter-token latency", "inter_token_latency_s"),
    ("Time per output token", "time_per_output_token_s"),
    ("End to end", "end_to_end_s"),
)
_PROVENANCE: Final = (
    "started", "commit", "versions", "machine", "device", "processes", "window", "schedule_hash", "arguments",
    "workload", "serving", "engines", "cache", "run",
)  # fmt: skip
_MOST_POINTS: Final = 400
"""Of a line in a figure: more would not be seen."""


def page(run: RunFolder) -> str:
    summary = run.summary
    body = [
        _warnings(summary),
        section("Figures", [card("What clients felt", _figures(run)), *_validity(run)] if run.models else []),
        _grid("Latency: the share of samples that is no longer", _cdfs(run)),
        _grid("Load and latency", list(curve_charts(run.curve))),
        section("Levels", [card("What was tried", table(*found))] if (found := curve_table(run.curve)) else []),
        _grid("Energy", list(_energy(run))),
        _grid("The run, second by second", [*_over_time(run), *_power(run)]),
        section("Provenance", [_provenance(summary)]),
    ]
    return document(f"Load test {run.name}", _subtitle(summary), [part for part in body if part])


def _subtitle(summary: Mapping[str, Any]) -> str:
    if not summary:
        return "A search for the highest load that holds: each level is a run of its own, in a folder beside this page."
    arguments = summary.get("arguments") or {}
    rate, window = arguments.get("rate"), (summary.get("window") or {}).get("length_s")
    load = f"open loop, {rate:g} requests/s" if rate else f"closed loop, {arguments.get('concurrency', DASH)} in flight"
    parts = [str(arguments.get("host") or ""), load, f"{count(window, digits=1)} s measured", summary.get("started")]
    return " · ".join(str(part) for part in parts if part)


def _warnings(summary: Mapping[str, Any]) -> str:
    notes = [str(note) for note in summary.get("notes") or ()]
    rate = (summary.get("validity") or {}).get("rate") or {}
    if rate.get("verdict") == "invalid":
        notes.append(f"INVALID for its rate: {rate.get('because')}")
    return paragraphs(notes, style="bad")


def _figures(run: RunFolder) -> str:
    headings = ("model", "requests", "failed", "TTFT p50", "p95", "ITL p50", "p95", "end-to-end p95", "tokens/s",
                "goodput/s", "J/token")  # fmt: skip
    rows = [
        (
            str(of["model"]),
            count(of.get("requests")),
            count(sum((of.get("errors") or {}).values())),
            _milliseconds(of, "time_to_first_token_s", "p50"),
            _milliseconds(of, "time_to_first_token_s", "p95"),
            _milliseconds(of, "inter_token_latency_s", "p50"),
            _milliseconds(of, "inter_token_latency_s", "p95"),
            _milliseconds(of, "end_to_end_s", "p95"),
            count(of.get("output_tokens_per_s")),
            count((of.get("goodput") or {}).get("requests_per_s"), digits=2),
            count(_joules(run, of), digits=4),
        )
        for of in run.models
    ]
    note = f"Times in ms. {DASH}: too few samples for that percentile, not valid, or unknown."
    return table(headings, rows) + paragraphs([note], style="note")


def _milliseconds(of: Mapping[str, Any], metric: str, percentile: str) -> str:
    return milliseconds((of.get(metric) or {}).get(percentile)) if _valid(of, metric) else DASH


def _valid(of: Mapping[str, Any], metric: str) -> bool:
    return bool(((of.get("validity") or {}).get(metric) or {}).get("verdict", "valid") == "valid")


def _validity(run: RunFolder) -> list[str]:
    """Why a metric is not shown, or not to be believed."""
    lines = [
        f"{of['model']}, {metric}: {verdict['verdict']}, {verdict.get('because')}"
        for of in run.models
        for metric, verdict in (of.get("validity") or {}).items()
        if verdict.get("verdict", "valid") != "valid"
    ]
    return [card("Not valid in this run", paragraphs(lines))] if lines else []


def _grid(title: str, charts: Sequence[Chart]) -> str:
    cards = "".join(chart_card(chart) for chart in charts)
    return section(title, [f'<div class="grid">{cards}</div>'] if cards else [])


def _cdfs(run: RunFolder) -> list[Chart]:
    charts = []
    for title, metric in _LATENCIES:
        series = [
            Series(
                name=str(of["model"]),
                points=[(seconds * _MS, share) for seconds, share in _thinned(run.cdf(of["model"], metric))],
                colour=number,
                mark="step",
            )
            for number, of in enumerate(run.models)
            if _valid(of, metric)
        ]
        if any(one.points for one in series):
            x = Axis(label=f"{title.lower()}, ms", logarithmic=True)
            charts.append(Chart(title=title, x=x, y=Axis(label="share", from_zero=True), series=series))
    return charts


def _thinned(points: Sequence[tuple[float, float]]) -> Sequence[tuple[float, float]]:
    step = max(1, len(points) // _MOST_POINTS)
    return [*points[:-1:step], *points[-1:]]


def _energy(run: RunFolder) -> Iterator[Chart]:
    points = []
    for of in run.models:
        joules, gap = _joules(run, of), (of.get("inter_token_latency_s") or {}).get("p95")
        if joules is not None and gap is not None:
            points.append((str(of["model"]), (gap * _MS, joules)))
    if points:
        scopes = ", ".join((run.summary.get("energy") or {}).get("scopes") or ()) or "unknown"
        yield Chart(
            title="Joules a token against p95 inter-token latency",
            x=Axis(label="p95 inter-token latency, ms"),
            y=Axis(label="J/token", from_zero=True),
            series=[
                Series(name=name, points=[at], colour=number, mark="points", labels=[name], labelled=True)
                for number, (name, at) in enumerate(points)
            ],
            note=f"Lower left is better. Scope of the joules: {scopes}.",
        )


def _joules(run: RunFolder, of: Mapping[str, Any]) -> float | None:
    return joules_per_token(run.summary.get("energy") or {}, str(of["model"]))


def _over_time(run: RunFolder) -> Iterator[Chart]:
    for title, label, columns, factor in (
        ("Output tokens a second", "tokens/s", (("output_tokens", ""),), 1 / float(run.timeseries.get("bin_s", 1.0))),
        ("Requests in flight", "requests", (("in_flight", ""),), 1.0),
        ("Time to first token", "ms", (("ttft_p50_s", " p50"), ("ttft_p95_s", " p95")), _MS),
        ("Inter-token latency", "ms", (("itl_p50_s", " p50"), ("itl_p95_s", " p95")), _MS),
        ("Failed requests a second", "requests", (("failed", ""),), 1.0),
    ):
        series = [
            Series(
                name=f"{of['model']}{suffix}",
                points=[(at, value * factor) for at, value in run.column(of["model"], column)],
                colour=number,
                dashed=suffix == " p95",
            )
            for number, of in enumerate(run.models)
            for column, suffix in columns
        ]
        if any(value for one in series for _, value in one.points):
            yield Chart(
                title=title,
                x=Axis(label="seconds since the start", from_zero=True),
                y=Axis(label=label, from_zero=True),
                series=series,
                note=_warm_up(run) if label == "tokens/s" else "",
            )


def _power(run: RunFolder) -> Iterator[Chart]:
    """All devices together, as the server's meters have it."""
    power = (run.summary.get("server") or {}).get("power") or {}
    points = list(zip(power.get("at_s") or (), power.get("watts") or (), strict=False))
    if points:
        yield Chart(
            title="Power of all devices",
            x=Axis(label="seconds since the start"),
            y=Axis(label="W", from_zero=True),
            series=[Series(name="", points=points, colour=0)],
        )


def _warm_up(run: RunFolder) -> str:
    window = run.summary.get("window") or {}
    if window.get("start_s") is None:
        return ""
    return f"Figures are of {window['start_s']:.1f} s to {window['end_s']:.1f} s: without warm-up and drain."


def _provenance(summary: Mapping[str, Any]) -> str:
    known = {key: summary[key] for key in _PROVENANCE if summary.get(key) is not None}
    text = json.dumps(known, indent=1, ensure_ascii=False)
    return f"<details><summary>What ran, on what, with which arguments</summary><pre>{escape(text)}</pre></details>"
