"""Means of few values with Student's t-interval, and of ratios by their logarithms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Final

__all__ = ["Interval", "mean_interval", "ratio_interval", "t_quantile"]

_UPPER: Final = 0.975
"""Of an interval that holds the mean with 95 % confidence."""
_STEPS: Final = 400
"""Of the integral; even. Six digits of a quantile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A mean, and where it lies with 95 % confidence."""

    mean: float
    low: float
    high: float
    values: int

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}–{self.high:.3f}]"  # noqa: RUF001  # a range


def mean_interval(values: Sequence[float]) -> Interval:
    """The arithmetic mean. Raises ValueError for fewer than two values: they say nothing of their spread."""
    if len(values) < 2:
        raise ValueError("an interval needs two values at least")
    mean = fmean(values)
    half = t_quantile(_UPPER, len(values) - 1) * stdev(values) / math.sqrt(len(values))
    return Interval(mean=mean, low=mean - half, high=mean + half, values=len(values))


def ratio_interval(ratios: Sequence[float]) -> Interval:
    """The geometric mean of ratios: their logarithms spread evenly, the ratios do not. Raises ValueError likewise."""
    logs = mean_interval([math.log(ratio) for ratio in ratios])
    return Interval(mean=math.exp(logs.mean), low=math.exp(logs.low), high=math.exp(logs.high), values=logs.values)


def t_quantile(share: float, freedom: int) -> float:
    """Student's t that so great a share lies below, 0.5 ≤ share < 1, by bisection of the integrated density."""
    low, high = 0.0, 1.0
    while _t_share(high, freedom) < share:
        high *= 2
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if _t_share(middle, freedom) < share else (low, middle)
    return (low + high) / 2


def _t_share(t: float, freedom: int) -> float:
    """The share of Student's distribution below t ≥ 0, by Simpson's rule over the angle atan(t / √freedom).

    In it the density is cos^(freedom - 1), which is smooth however long the tail is.
    """
    scale = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(math.pi)
    width = math.atan(t / math.sqrt(freedom)) / _STEPS
    weights = (1 if place in {0, _STEPS} else 4 if place % 2 else 2 for place in range(_STEPS + 1))
    total = sum(weight * math.cos(place * width) ** (freedom - 1) for place, weight in enumerate(weights))
    return 0.5 + scale * total * width / 3
