"""Ranks of rows, measure by measure, and the front of those that none is better than.

There is no score over all measures: the paper found no method best in all six, and any weights would be an opinion.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from server.efficiency.figure import Better

__all__ = ["PARETO_AXES", "Front", "front", "ranks"]

PARETO_AXES: Final[Mapping[str, Better]] = {
    "output_token_j": Better.LOWER,
    "itl_p95_s": Better.LOWER,
    "quality_ratio": Better.HIGHER,
}
_NEEDED: Final = ("output_token_j", "itl_p95_s")
"""A row without these is not compared."""


class Front(NamedTuple):
    """Who is on the Pareto front."""

    axes: tuple[str, ...]
    """That all compared rows have; quality is left out where one of them has none."""
    on_it: Sequence[bool | None]
    """Of each row; None: it was not compared."""


def ranks(values: Sequence[float | None], better: Better | None) -> list[int | None]:
    """1 is best; equals share a rank, and the next one counts them all; unknown has none.

    Equal is what agrees in the three digits that tables show: nothing here is measured better than that.
    """
    if better is None:
        return [None] * len(values)
    sign = 1 if better is Better.LOWER else -1
    costs = [None if value is None else float(f"{sign * value:.3g}") for value in values]
    known = [cost for cost in costs if cost is not None]
    return [None if cost is None else 1 + sum(other < cost for other in known) for cost in costs]


def front(rows: Sequence[Mapping[str, float | None]]) -> Front:
    """A row is on the front if no other is as good on all axes and better on one. Rows have `PARETO_AXES` as keys."""
    compared = [row for row in rows if all(row[axis] is not None for axis in _NEEDED)]
    axes = tuple(axis for axis in PARETO_AXES if compared and all(row[axis] is not None for row in compared))
    points = [_point(row, axes) for row in compared]
    return Front(axes, [_stands(_point(row, axes), points) if row in compared else None for row in rows])


def _point(row: Mapping[str, float | None], axes: Sequence[str]) -> tuple[float, ...]:
    """Lower is better on each axis."""
    values = ((row[axis], PARETO_AXES[axis]) for axis in axes)
    return tuple(value if better is Better.LOWER else -value for value, better in values if value is not None)


def _stands(point: tuple[float, ...], others: Sequence[tuple[float, ...]]) -> bool:
    return not any(
        other != point and all(theirs <= mine for theirs, mine in zip(other, point, strict=True)) for other in others
    )
