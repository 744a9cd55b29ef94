"""Charts as SVG text; colours are CSS classes, so that a page has a light and a dark face."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from typing import Final, Literal

from loadgen._report_html._scale import Scale, scale_of, shown

__all__ = ["Axis", "Bar", "Chart", "Series", "forest", "svg"]

_WIDTH: Final = 440.0
_HEIGHT: Final = 270.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 50.0, 14.0, 26.0, 42.0
_ROW: Final = 24.0
_FOREST_TOP: Final = 6.0
_CHARACTER: Final = 7.6
"""Width of a letter at the size that the page's style gives on a narrow screen, about."""

Pair = tuple[float, float]
Mark = Literal["line", "step", "points", "line and points"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Points in the order in which they are joined; `colour` is its number in the page's palette."""

    name: str
    points: Sequence[Pair]
    colour: int
    mark: Mark = "line"
    dashed: bool = False
    labels: Sequence[str] = ()
    """What a pointer over a point says; also written beside it where `labelled`."""
    labelled: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """What it is called, and how values lie on it."""

    label: str
    logarithmic: bool = False
    from_zero: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """One figure."""

    title: str
    x: Axis
    y: Axis
    series: Sequence[Series]
    note: str = ""
    """A line under it: what a reader must know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """A row of a forest plot: a ratio with its interval."""

    label: str
    value: float
    low: float
    high: float
    style: str
    """CSS class: `better`, `worse`, `same`, `open`."""


def svg(chart: Chart) -> str:
    """Points that a logarithmic axis cannot show are left out."""
    points = [point for series in chart.series for point in _visible(series, chart)]
    x = _scale(chart.x, [point[0] for point in points], _LEFT, _WIDTH - _RIGHT)
    y = _scale(chart.y, [point[1] for point in points], _HEIGHT - _BOTTOM, _TOP)
    parts = [*_grid(chart, x, y)]
    for series in chart.series:
        parts += _drawn(series, [(x.place(a), y.place(b)) for a, b in _visible(series, chart)])
    return _document(chart.title, _HEIGHT, parts)


def forest(title: str, bars: Sequence[Bar], *, margin: float) -> str:
    """Ratios on a logarithmic axis with the line of no difference and the margin around it."""
    left = min(_WIDTH * 0.45, 12 + _CHARACTER * max((len(bar.label) for bar in bars), default=0))
    top = _FOREST_TOP
    bottom = top + _ROW * len(bars)
    ends = [end for bar in bars for end in (bar.low, bar.high)]
    x = scale_of([*ends, 1 / (1 + margin), 1 + margin], start=left, end=_WIDTH - _RIGHT, logarithmic=True)
    band = x.place(1 / (1 + margin)), x.place(1 + margin)
    parts = [
        f'<rect class="band" x="{band[0]:.1f}" y="{top}" width="{band[1] - band[0]:.1f}" height="{bottom - top}"/>'
    ]
    for tick in x.ticks():
        parts.append(_line("grid", x.place(tick), top, x.place(tick), bottom))
        parts.append(_text("tick", x.place(tick), bottom + 16, shown(tick), "middle"))
    parts.append(_line("one", x.place(1), top, x.place(1), bottom))
    for number, bar in enumerate(bars):
        parts += _bar(bar, x, top + _ROW * (number + 0.5))
    return _document(title, bottom + 24, parts)


def _bar(bar: Bar, x: Scale, y: float) -> list[str]:
    low, high = x.place(bar.low), x.place(bar.high)
    said = f"<title>{escape(bar.label)}: {bar.value:.3g} ({bar.low:.3g} to {bar.high:.3g})</title>"
    lines = _line("", low, y, high, y) + _line("", low, y - 4, low, y + 4) + _line("", high, y - 4, high, y + 4)
    dot = f'<circle cx="{x.place(bar.value):.1f}" cy="{y:.1f}" r="4"/>'
    return [_text("label", x.start - 8, y + 4, bar.label, "end"), f'<g class="bar {bar.style}">{said}{lines}{dot}</g>']


def _scale(axis: Axis, values: Sequence[float], start: float, end: float) -> Scale:
    return scale_of(values, start=start, end=end, logarithmic=axis.logarithmic, from_zero=axis.from_zero)


def _visible(series: Series, chart: Chart) -> list[Pair]:
    return [
        (x, y)
        for x, y in series.points
        if math.isfinite(x)
        and math.isfinite(y)
        and not (chart.x.logarithmic and x <= 0)
        and not (chart.y.logarithmic and y <= 0)
    ]


def _grid(chart: Chart, x: Scale, y: Scale) -> list[str]:
    parts = []
    for tick in y.ticks():
        parts.append(_line("grid", x.start, y.place(tick), x.end, y.place(tick)))
        parts.append(_text("tick", x.start - 6, y.place(tick) + 4, shown(tick), "end"))
    for tick in x.ticks():
        parts.append(_line("stub", x.place(tick), y.start, x.place(tick), y.start + 4))
        parts.append(_text("tick", x.place(tick), y.start + 17, shown(tick), "middle"))
    parts.append(_line("axis", x.start, y.start, x.end, y.start))
    parts.append(_text("name", x.middle, y.start + 35, chart.x.label, "middle"))
    parts.append(_text("name", 4, 13, chart.y.label, "start"))
    return parts


def _drawn(series: Series, places: Sequence[Pair]) -> list[str]:
    parts = []
    style = f"s{series.colour % 8}"
    if series.mark != "points" and len(places) > 1:
        path = "M" + " L".join(f"{x:.1f} {y:.1f}" for x, y in _corners(places, series.mark))
        dashed = ' stroke-dasharray="5 4"' if series.dashed else ""
        parts.append(f'<path class="line {style}"{dashed} d="{path}"><title>{escape(series.name)}</title></path>')
    if series.mark in {"points", "line and points"}:
        for number, (x, y) in enumerate(places):
            label = series.labels[number] if number < len(series.labels) else series.name
            parts.append(
                f'<circle class="dot {style}" cx="{x:.1f}" cy="{y:.1f}" r="4.5"><title>{escape(label)}</title></circle>'
            )
            if series.labelled:
                parts.append(_beside(x, y, label))
    return parts


def _corners(places: Sequence[Pair], mark: Mark) -> Sequence[Pair]:
    if mark != "step":
        return places
    corners = [places[0]]
    for (_, before), (x, y) in pairwise(places):
        corners += [(x, before), (x, y)]
    return corners


def _beside(x: float, y: float, label: str) -> str:
    """To the right of a point where there is room, else to its left."""
    if x + 9 + _CHARACTER * len(label) < _WIDTH:
        return _text("label", x + 9, y + 4, label, "start")
    return _text("label", x - 9, y + 4, label, "end")


def _line(style: str, x1: float, y1: float, x2: float, y2: float) -> str:
    css = f' class="{style}"' if style else ""
    return f'<line{css} x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(style: str, x: float, y: float, text: str, anchor: str) -> str:
    return f'<text class="{style}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _document(title: str, height: float, parts: Sequence[str]) -> str:
    head = f'<svg viewBox="0 0 {_WIDTH:g} {height:g}" role="img" aria-label="{escape(title, quote=True)}">'
    return head + "".join(parts) + "</svg>"
