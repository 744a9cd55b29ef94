"""Which configurations no other beats on J/token, p95 ITL and quality together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from loadgen._compare._analysis import Analysis
from loadgen._compare._design import Level
from loadgen._compare._ranks import ServerView

__all__ = ["Point", "front"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A configuration at a level, by its geometric means."""

    name: str
    level: Level
    joules_per_token: float
    itl_p95_s: float
    quality: float | None
    """Takes part only where all have one."""
    on_front: bool = False

    def beats(self, other: Point, *, with_quality: bool) -> bool:
        """As good in all, better in one."""
        mine, theirs = self._costs(with_quality), other._costs(with_quality)
        return mine != theirs and all(one <= another for one, another in zip(mine, theirs, strict=True))

    def _costs(self, with_quality: bool) -> tuple[float, ...]:
        quality = (-(self.quality or 0.0),) if with_quality else ()
        return (self.joules_per_token, self.itl_p95_s, *quality)


def front(analysis: Analysis, server: ServerView) -> list[Point]:
    """Every level is a front of its own: a configuration is not better for being asked less."""
    return [point for level in analysis.levels for point in _of_level(analysis, server, level)]


def _of_level(analysis: Analysis, server: ServerView, level: Level) -> Sequence[Point]:
    points = []
    for name in analysis.plan.names:
        joules, gap = analysis.mean(name, "joules_per_token", level), analysis.mean(name, "itl_p95", level)
        if joules is not None and gap is not None:
            points.append(
                Point(
                    name=name,
                    level=level,
                    joules_per_token=joules,
                    itl_p95_s=gap,
                    quality=server.quality.get(name),
                )
            )
    with_quality = all(point.quality is not None for point in points)
    return [
        replace(point, on_front=not any(other.beats(point, with_quality=with_quality) for other in points))
        for point in points
    ]
