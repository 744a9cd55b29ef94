"""Quality against size as inline SVG: points, intervals, the Pareto front as a staircase.

Colours are CSS classes of style.py, so that the plot follows the page into the dark.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

__all__ = ["Point", "scatter"]

_WIDTH: Final = 480
_HEIGHT: Final = 330
_LEFT: Final = 58
_RIGHT: Final = 18
_TOP: Final = 16
_BOTTOM: Final = 46
_LINE: Final = 15  # between labels
_LETTER: Final = 7.4  # width of a letter of a label, about


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One variant."""

    name: str
    x: float
    y: float
    interval: tuple[float, float] | None
    front: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scale:
    """Values → pixels on one axis."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)

    def ticks(self) -> list[float]:
        step = _step(self.high - self.low)
        first = math.ceil(self.low / step - 1e-9)
        return [n * step for n in range(first, math.floor(self.high / step + 1e-9) + 1)]


def scatter(points: Sequence[Point], *, x_title: str, y_title: str, y_best: float) -> str:
    """The SVG; `y_best` is the loss of the reference against itself, where the axis begins."""
    x_most = max(point.x for point in points)
    y_most = max(point.interval[1] if point.interval else point.y for point in points)
    y_least = min([y_best, *(point.interval[0] if point.interval else point.y for point in points)])
    room = (y_most - y_least) * 0.08 or abs(y_best) * 0.01 or 1.0
    x = _Scale(low=0, high=x_most * 1.08, start=_LEFT, end=_WIDTH - _RIGHT)
    y = _Scale(low=y_least - room / 2, high=y_most + room, start=_HEIGHT - _BOTTOM, end=_TOP)
    parts = [*_axes(x, y, x_title, y_title), *_staircase(points, x, y), *_marks(points, x, y), *_labels(points, x, y)]
    title = f"{y_title} against {x_title}"
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>{''.join(parts)}</svg>"
    )


def _axes(x: _Scale, y: _Scale, x_title: str, y_title: str) -> Iterator[str]:
    bottom, right = y.start, x.end
    for tick in y.ticks():
        at = y.at(tick)
        yield f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{at}" y2="{at}"/>'
        yield f'<text class="tick" x="{_LEFT - 7}" y="{at + 4}" text-anchor="end">{tick:.6g}</text>'
    for tick in x.ticks():
        at = x.at(tick)
        yield f'<line class="axis" x1="{at}" x2="{at}" y1="{bottom}" y2="{bottom + 5}"/>'
        yield f'<text class="tick" x="{at}" y="{bottom + 19}" text-anchor="middle">{tick:.6g}</text>'
    yield f'<line class="axis" x1="{_LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}"/>'
    yield f'<text class="title" x="{right}" y="{_HEIGHT - 8}" text-anchor="end">{escape(x_title)} →</text>'
    yield f'<text class="title" x="{_LEFT + 6}" y="{_TOP - 3}">↑ {escape(y_title)}</text>'


def _staircase(points: Sequence[Point], x: _Scale, y: _Scale) -> Iterator[str]:
    front = sorted((point for point in points if point.front), key=lambda point: point.x)
    if len(front) < 2:
        return
    path = f"M{x.at(front[0].x)} {y.at(front[0].y)}"
    path += "".join(f"H{x.at(point.x)}V{y.at(point.y)}" for point in front[1:])
    yield f'<path class="front" d="{path}"/>'


def _marks(points: Sequence[Point], x: _Scale, y: _Scale) -> Iterator[str]:
    for point in points:
        kind = "on" if point.front else "off"
        at, level = x.at(point.x), y.at(point.y)
        if point.interval:
            low, high = (y.at(bound) for bound in point.interval)
            yield f'<path class="whisker {kind}" d="M{at} {low}V{high}M{at - 4} {low}h8M{at - 4} {high}h8"/>'
        yield f'<circle class="{kind}" cx="{at}" cy="{level}" r="5"/>'


def _labels(points: Sequence[Point], x: _Scale, y: _Scale) -> Iterator[str]:
    """Beside the points; the later of two that would cover one another moves up."""
    taken: list[tuple[float, float, float]] = []  # left, right, level
    for point in sorted(points, key=lambda point: -y.at(point.y)):
        width, at = _LETTER * len(point.name), x.at(point.x)
        left = at + 9 if at + 9 + width <= _WIDTH else at - 9 - width
        level = y.at(point.y) - 6
        while any(left < r and left + width > l and abs(level - v) < _LINE for l, r, v in taken):  # noqa: E741
            level -= _LINE
        taken.append((left, left + width, level))
        anchor, place = ("start", left) if left > at else ("end", at - 9)
        kind = "on" if point.front else "off"
        yield (
            f'<text class="label {kind}" x="{round(place, 1)}" y="{round(level, 1)}" text-anchor="{anchor}">'
            f"{escape(point.name)}</text>"
        )


def _step(length: float) -> float:
    """A round distance of ticks that gives four to nine of them."""
    power = 10.0 ** math.floor(math.log10(length / 4))
    return next(power * times for times in (10, 5, 2, 1) if length / (power * times) >= 4)
