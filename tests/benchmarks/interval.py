"""Means of few values with Student's t-interval, and of ratios by their logarithms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Final

from loadgen._compare._student import t_quantile

__all__ = ["Interval", "mean_interval", "ratio_interval"]

_UPPER: Final = 0.975
"""Of an interval that holds the mean with 95 % confidence."""


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
