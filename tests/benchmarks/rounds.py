"""What interleaved rounds say: medians, spread, and ratios taken within each round."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import median
from typing import Final

__all__ = ["MAX_SPREAD", "Figure", "Rounds", "added", "bucket_of", "figure", "percentile", "ratio", "slope"]

Rounds = Sequence[Mapping[str, Mapping[str, float]]]
"""Of each round: target → measure → value."""

MAX_SPREAD: Final = 0.25
"""Interquartile range over median above which rounds disagree too much to say anything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One measure over all rounds."""

    median: float
    low: float
    """First quartile."""
    high: float
    """Third quartile."""
    rounds: int
    max_spread: float = MAX_SPREAD

    @property
    def spread(self) -> float:
        """Interquartile range over median; infinite where the median is 0 and the rounds differ."""
        width = self.high - self.low
        if width == 0:
            return 0.0
        return width / abs(self.median) if self.median else math.inf

    @property
    def valid(self) -> bool:
        """Whether the rounds agree well enough."""
        return self.spread <= self.max_spread


def percentile(values: Sequence[float], percent: float) -> float:
    """The percentile, interpolated between neighbours. Raises ValueError for no values."""
    if not values:
        raise ValueError("no values")
    ordered = sorted(values)
    place = (len(ordered) - 1) * percent / 100
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def bucket_of(cumulative: Mapping[float, float], share: float) -> float:
    """Upper bound of the histogram bucket by which so great a share was counted; infinite for no observations."""
    total = max(cumulative.values(), default=0.0)
    bounds = (bound for bound in sorted(cumulative) if total and cumulative[bound] >= share * total)
    return next(bounds, math.inf)


def figure(values: Sequence[float]) -> Figure:
    """Median and quartiles of the rounds. Raises ValueError for no rounds."""
    return Figure(median=median(values), low=percentile(values, 25), high=percentile(values, 75), rounds=len(values))


def ratio(rounds: Rounds, measure: str, target: str, base: str, *, of_base: str | None = None) -> Figure | None:
    """`target` over `base` within each round that has both; None: no round has.

    `of_base`: the base's measure, where it is another than the target's.
    """
    pairs = _pairs(rounds, (target, measure), (base, of_base or measure))
    ratios = [ours / theirs for ours, theirs in pairs if theirs]
    return figure(ratios) if ratios else None


def added(rounds: Rounds, measure: str, target: str, base: str) -> Figure | None:
    """`target` less `base` within each round that has both; None: no round has."""
    pairs = _pairs(rounds, (target, measure), (base, measure))
    return figure([ours - theirs for ours, theirs in pairs]) if pairs else None


def _pairs(rounds: Rounds, one: tuple[str, str], other: tuple[str, str]) -> list[tuple[float, float]]:
    found = [[samples.get(name, {}).get(measure) for name, measure in (one, other)] for samples in rounds]
    return [(first, second) for first, second in found if first is not None and second is not None]


def slope(at: Sequence[float], values: Sequence[float]) -> float:
    """Growth of `values` by one of `at`, by Theil and Sen: the median over all pairs. Raises ValueError for no pair."""
    pairs = combinations(zip(at, values, strict=True), 2)
    return median((later - sooner) / (end - begin) for (begin, sooner), (end, later) in pairs if end != begin)
