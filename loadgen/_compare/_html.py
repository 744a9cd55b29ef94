"""The page of a comparison."""

from __future__ import annotations

import json
from collections.abc import Iterator
from html import escape
from typing import Final

from loadgen._compare._analysis import MAX_GOODPUT, Finding, higher_is_better, title_of
from loadgen._compare._metrics import METRICS
from loadgen._compare._pareto import Point
from loadgen._compare._results import Results
from loadgen._compare._statistics import Outcome
from loadgen._compare._verdict import percent
from loadgen._report_html._chart import Axis, Bar, Chart, Series, forest
from loadgen._report_html._page import card, chart_card, document, paragraphs, section, table

__all__ = ["page"]

_MS: Final = 1000.0
_COLOURS: Final = (
    "Green is better, red is worse, black is equal within the margin (grey), a hollow circle is undecided."
)
_CURVES: Final = (
    ("ttft_p95", "TTFT p95"),
    ("itl_p95", "ITL p95"),
    ("e2e_p95", "end-to-end p95"),
    ("goodput", "goodput"),
)


def page(results: Results) -> str:
    analysis = results.analysis
    plan = analysis.plan
    first, *rest = results.verdict
    body = [
        section("Verdict", [paragraphs([first], style="" if analysis.trust.trusted else "bad"), paragraphs(rest)]),
        section("Ratios with their intervals", [paragraphs([_COLOURS], style="note"), _wrapped(_forests(results))]),
        section("Rate against latency", _cards(_curves(results))),
        section("Joules a token against p95 inter-token latency", _cards(_fronts(results))),
        section("Tables", [card(grid.title, table(grid.headings, grid.rows)) + "<br>" for grid in results.grids]),
        section("How to read this", [paragraphs(_explanation(results))]),
        section("Plan", [f"<details><summary>As it ran</summary><pre>{escape(_plan(results))}</pre></details>"]),
    ]
    subtitle = f"{analysis.blocks} blocks in random order, {len(analysis.figures)} runs, plan {plan.hash()}"
    return document(f"{', '.join(plan.names[1:])} against {plan.reference}", subtitle, [part for part in body if part])


def _wrapped(cards: Iterator[str]) -> str:
    return f'<div class="grid">{"".join(cards)}</div>'


def _cards(charts: Iterator[Chart]) -> list[str]:
    cards = [chart_card(chart) for chart in charts]
    return [_wrapped(iter(cards))] if cards else []


def _forests(results: Results) -> Iterator[str]:
    plan, analysis = results.analysis.plan, results.analysis
    for number, level in enumerate(dict.fromkeys(one.level for one in analysis.findings)):
        where = level.title if level else "over all rates"
        for name in plan.names[1:]:
            mine = [one for one in analysis.findings if one.configuration == name and one.level == level]
            yield from _forest(
                f"{name} / {plan.reference}, {where}", [_bar(one) for one in mine if one.estimate], plan.margin
            )
        if level is not None or number == 0:
            twins = [one for one in analysis.twins if one.level == level]
            title = f"A/A: {plan.reference} / itself, {where}"
            yield from _forest(title, [_bar(one) for one in twins if one.estimate], plan.margin)


def _forest(title: str, bars: list[Bar], margin: float) -> Iterator[str]:
    if bars:
        yield card(title, forest(title, bars, margin=margin))


def _bar(finding: Finding) -> Bar:
    found = finding.estimate
    assert found is not None
    style = {Outcome.EQUIVALENT: "same", Outcome.UNDECIDED: "open", None: "open"}.get(finding.outcome)
    if style is None:
        style = "better" if (found.ratio > 1) == higher_is_better(finding.metric) else "worse"
    label = "goodput at SLO" if finding.metric == MAX_GOODPUT else title_of(finding.metric)
    return Bar(label=label, value=found.ratio, low=found.low, high=found.high, style=style)


def _curves(results: Results) -> Iterator[Chart]:
    analysis = results.analysis
    ladder = [level for level in analysis.levels if level.loop == "open"]
    if len(ladder) < 2:
        return
    for metric, title in _CURVES:
        factor = _MS if METRICS[metric].unit == "s" else 1.0
        series = []
        for number, name in enumerate(analysis.plan.names):
            means = [(level.value, analysis.mean(name, metric, level)) for level in ladder]
            points = [(rate, mean * factor) for rate, mean in means if mean is not None]
            series.append(Series(name=name, points=points, colour=number, mark="line and points"))
        if any(one.points for one in series):
            label = f"{title}, ms" if factor == _MS else "good requests a second"
            yield Chart(
                title=title,
                x=Axis(label="offered requests a second", from_zero=True),
                y=Axis(label=label, logarithmic=factor == _MS, from_zero=factor != _MS),
                series=series,
            )


def _fronts(results: Results) -> Iterator[Chart]:
    """Closed and open loop never on one axis; a level's front is drawn where it is the only one."""
    for title, loop in (("Requests always in flight", "closed"), ("Requests at a rate", "open")):
        points = [point for point in results.points if point.level.loop == loop]
        if points:
            yield _front(results, title, points)


def _front(results: Results, title: str, points: list[Point]) -> Chart:
    series = []
    for number, name in enumerate(results.analysis.plan.names):
        mine = [point for point in points if point.name == name]
        series.append(
            Series(
                name=name,
                points=[(point.itl_p95_s * _MS, point.joules_per_token) for point in mine],
                colour=number,
                mark="line and points",
                labels=[f"{name}, {point.level.title}" if len(mine) > 1 else name for point in mine],
                labelled=len(mine) == 1,
            )
        )
    best = sorted((point.itl_p95_s * _MS, point.joules_per_token) for point in points if point.on_front)
    if len({point.level for point in points}) == 1 and len(best) > 1:
        series.append(Series(name="Pareto front", points=best, colour=7, dashed=True))
    with_quality = bool(points) and all(point.quality is not None for point in points)
    axes = "J/token, p95 ITL and quality" if with_quality else "J/token and p95 ITL (no quality is known of all)"
    return Chart(
        title=title,
        x=Axis(label="p95 inter-token latency, ms"),
        y=Axis(label="J/token", from_zero=True),
        series=series,
        note=f"Lower left is better. On the front: none is as good in {axes} and better in one. By geometric means.",
    )


def _explanation(results: Results) -> list[str]:
    plan = results.analysis.plan
    confidence = f"{plan.confidence * 100:g} %"
    blocks = (
        "A run is the unit that is repeated. In each block every configuration, and the reference a second time, ran "
        "once at every load, in an order drawn for that block; a ratio is of two runs of one block."
    )
    claims = (
        f"Intervals are {confidence} t-intervals of the mean of the ratios' logarithms. A difference or an equivalence "
        "is claimed only where it stands after Holm's correction over all metrics, loads and configurations; so an "
        "interval may leave out 1 where the verdict is still undecided."
    )
    equal = f"Equal means: within ± {percent(plan.margin)}, shown by two one-sided tests. The grey band is that margin."
    stopping = (
        f"The number of blocks was set once, after {plan.blocks.at_least}, by how far those scattered (Stein's "
        "two stages). Intervals take their spread from those blocks, or from all where that is wider, so that the rule "
        "does not make them narrower than they may be."
    )
    return [blocks, claims, equal, *([stopping] if plan.blocks.half_width > 0 else [])]


def _plan(results: Results) -> str:
    return json.dumps(results.analysis.plan.to_json(), indent=1, ensure_ascii=False)
