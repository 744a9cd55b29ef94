"""The comparison as tables, for the terminal, Markdown and HTML alike."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from loadgen._compare._analysis import Analysis, Finding, higher_is_better, title_of
from loadgen._compare._design import Level
from loadgen._compare._metrics import METRICS
from loadgen._compare._pareto import Point
from loadgen._compare._ranks import ServerView
from loadgen._compare._statistics import Outcome
from loadgen._compare._verdict import interval, percent, ratio
from loadgen._report import DASH

__all__ = ["Grid", "grids"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """The first column names, the others are numbers."""

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def grids(analysis: Analysis, points: Iterable[Point], server: ServerView) -> list[Grid]:
    """Those that have something to say, in the order in which they are read."""
    places = list(dict.fromkeys(one.level for one in analysis.findings))
    found = [_ratios(analysis, level, name) for level in places for name in analysis.plan.names[1:]]
    found += [_means(analysis, level) for level in analysis.levels]
    found += [_front(list(points)), _ranks(analysis, server)]
    return [grid for grid in found if grid.rows]


def _ratios(analysis: Analysis, level: Level | None, name: str) -> Grid:
    confidence = f"{analysis.plan.confidence * 100:g} %"
    rows = [_ratio_row(one) for one in analysis.findings if one.configuration == name and one.level == level]
    where = level.title if level else "equal SLO"
    return Grid(
        title=f"{name} against {analysis.plan.reference}, {where}",
        headings=("metric", "ratio", f"{confidence} interval", "blocks", "p (Holm)", "verdict"),
        rows=tuple(rows),
    )


def _ratio_row(finding: Finding) -> tuple[str, ...]:
    found = finding.estimate
    if found is None or finding.outcome is None:
        return title_of(finding.metric), DASH, DASH, DASH, DASH, "not known"
    p = "< 0.001" if finding.p_differs < 0.001 else f"{finding.p_differs:.3f}"
    said = finding.outcome.value
    if finding.outcome is Outcome.DIFFERS:
        said = "better" if (found.ratio > 1) == higher_is_better(finding.metric) else "worse"
    return title_of(finding.metric), ratio(found.ratio), interval(found), str(found.pairs), p, said


def _means(analysis: Analysis, level: Level) -> Grid:
    metrics = [metric for metric in analysis.plan.metrics if level.loop in METRICS[metric].loops]
    rows = [
        (
            title_of(metric) + (" (ms)" if METRICS[metric].unit == "s" else ""),
            *(_value(analysis, name, metric, level) for name in analysis.plan.names),
        )
        for metric in metrics
    ]
    failed = [analysis.failed(name, level) for name in analysis.plan.names]
    rows.append(("failed requests", *(percent(some / of) if of else DASH for some, of in failed)))
    return Grid(
        title=f"Geometric means of {analysis.blocks} blocks, {level.title}",
        headings=("metric", *analysis.plan.names),
        rows=tuple(rows),
    )


def _value(analysis: Analysis, name: str, metric: str, level: Level | None) -> str:
    value = analysis.mean(name, metric, level)
    if value is None:
        return DASH
    value = value * 1000 if METRICS[metric].unit == "s" else value
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _front(points: list[Point]) -> Grid:
    rows = [
        (
            f"{point.name}, {point.level.title}",
            f"{point.joules_per_token:.3g}",
            f"{point.itl_p95_s * 1000:.3g}",
            DASH if point.quality is None else f"{point.quality:.4f}",
            "yes" if point.on_front else "no",
        )
        for point in points
    ]
    headings = ("configuration", "J/token", "ITL p95 (ms)", "quality/ref.", "on the front")
    return Grid(title="Pareto front (by means)", headings=headings, rows=tuple(rows))


def _ranks(analysis: Analysis, server: ServerView) -> Grid:
    measures = list(dict.fromkeys(title for ranks in server.ranks.values() for title in ranks))
    names = [name for name in analysis.plan.names if name in server.ranks]
    rows = [(title, *(str(server.ranks[name].get(title, DASH)) for name in names)) for title in measures]
    return Grid(title="Ranks, as the server has them", headings=("measure", *names), rows=tuple(rows))
