"""Paired log ratios: intervals, tests, equivalence, Holm, Stein's number of blocks."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from loadgen._compare._student import t_cdf, t_quantile

__all__ = ["Estimate", "Outcome", "Worse", "blocks_needed", "estimate", "holm", "outcome_of", "worse_than"]

_FEWEST_PAIRS = 3


class Outcome(Enum):
    """What can be said of a ratio."""

    DIFFERS = "differs"
    EQUIVALENT = "equivalent"
    """Within the margin, though it may be measurably off 1."""
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A ratio of two configurations over paired blocks; the interval has the confidence that was asked for."""

    ratio: float
    """Geometric mean of the blocks' ratios."""
    low: float
    high: float
    p_differs: float
    """Two-sided, of ratio = 1."""
    p_equivalent: float
    """Of being outside of the margin: the larger of two one-sided tests (TOST)."""
    pairs: int

    @property
    def half_width(self) -> float:
        """Of the interval of the logarithm: 0.05 is about ± 5 %."""
        return math.log(self.high / self.low) / 2


def estimate(log_ratios: Sequence[float], *, first: int, confidence: float, margin: float) -> Estimate | None:
    """None with fewer than three pairs.

    `first` blocks decided how many there would be, by their spread (Stein, 1945, Annals of Mathematical Statistics 16).
    The interval then takes its spread and degrees of freedom from those blocks, which is exact for normal data; from
    all blocks where that is wider, so that noise that came later is not lost.
    """
    pairs = len(log_ratios)
    if pairs < _FEWEST_PAIRS:
        return None
    mean = statistics.fmean(log_ratios)
    spread, degrees, half = max(
        (_spread(log_ratios[:count], pairs, confidence) for count in {min(max(first, _FEWEST_PAIRS), pairs), pairs}),
        key=lambda found: found[2],
    )
    delta = math.log1p(margin)
    return Estimate(
        ratio=math.exp(mean),
        low=math.exp(mean - half),
        high=math.exp(mean + half),
        p_differs=min(1.0, 2 * _beyond(abs(mean), spread, degrees)),
        p_equivalent=max(_beyond(delta + mean, spread, degrees), _beyond(delta - mean, spread, degrees)),
        pairs=pairs,
    )


def blocks_needed(log_ratios: Sequence[float], *, target: float, confidence: float) -> int:
    """Blocks in all for an interval of half width `target`, by these first ones: ⌈(t · s / target)²⌉."""
    deviation = statistics.stdev(log_ratios)
    t = t_quantile((1 + confidence) / 2, len(log_ratios) - 1)
    return max(len(log_ratios), math.ceil((t * deviation / target) ** 2))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted so that the chance of any false rejection among all stays below the level. Source: Holm, 1979."""
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def outcome_of(*, p_differs: float, p_equivalent: float, confidence: float) -> Outcome:
    """Of adjusted p values. Within the margin is called equivalent even where the small difference is certain."""
    level = 1 - confidence
    if p_equivalent < level:
        return Outcome.EQUIVALENT
    return Outcome.DIFFERS if p_differs < level else Outcome.UNDECIDED


@dataclass(frozen=True, slots=True, kw_only=True)
class Worse:
    """A metric now against one stored before: a ratio above 1 is worse, whichever way the metric is read."""

    ratio: float
    low: float
    """Lower end of a one-sided interval, not adjusted."""
    p: float
    """Of being no worse than the margin."""


def worse_than(now: Sequence[float], before: Sequence[float], *, confidence: float, margin: float) -> Worse | None:
    """Logarithms of "cost" (larger is worse), not paired: Welch's test of a shift by more than the margin."""
    if min(len(now), len(before)) < _FEWEST_PAIRS:
        return None
    shift = statistics.fmean(now) - statistics.fmean(before)
    parts = [statistics.variance(sample) / len(sample) for sample in (now, before)]
    spread = math.sqrt(sum(parts))
    weights = sum(part**2 / (len(sample) - 1) for part, sample in zip(parts, (now, before), strict=True))
    degrees = sum(parts) ** 2 / weights if weights > 0 else float(len(now) + len(before) - 2)
    return Worse(
        ratio=math.exp(shift),
        low=math.exp(shift - t_quantile(confidence, degrees) * spread),
        p=_beyond(shift - math.log1p(margin), spread, degrees),
    )


def _spread(log_ratios: Sequence[float], pairs: int, confidence: float) -> tuple[float, int, float]:
    """Standard error of the mean of `pairs` blocks, its degrees of freedom, half width of the interval."""
    degrees = len(log_ratios) - 1
    error = statistics.stdev(log_ratios) / math.sqrt(pairs)
    return error, degrees, t_quantile((1 + confidence) / 2, degrees) * error


def _beyond(distance: float, error: float, degrees: float) -> float:
    """P(T > distance/error); without any spread it is known for certain."""
    if error == 0:
        return 0.0 if distance > 0 else 0.5 if distance == 0 else 1.0
    return 1 - t_cdf(distance / error, degrees) if distance <= 0 else t_cdf(-distance / error, degrees)
