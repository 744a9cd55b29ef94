"""Percentiles that are only given where the sample carries them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from loadgen._histogram import Histogram

__all__ = ["FLOORS", "Distribution", "percentile"]

FLOORS: Final[Mapping[float, int]] = {50.0: 11, 90.0: 64, 95.0: 130, 99.0: 662, 99.9: 6636}
"""Fewest samples with which a percentile is given.

With that many, at least two samples lie beyond the percentile with 99 % confidence; below, a "p95" is hardly more than
the sample's maximum.
"""


def percentile(ascending: Sequence[float], percent: float) -> float | None:
    """The nearest-rank percentile, always a value that was observed; None below the floor of its tail."""
    if len(ascending) < FLOORS[percent]:
        return None
    # Rounded first: 99.9 / 100 · 10000 is a hair over 9990 in binary.
    return ascending[math.ceil(round(percent / 100 * len(ascending), 9)) - 1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Distribution:
    """What is said of one kind of sample; None where there are too few, or none."""

    samples: int
    mean: float | None
    p50: float | None
    p90: float | None
    p95: float | None
    p99: float | None
    p99_9: float | None
    max: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> Distribution:
        ascending = sorted(values)
        return cls(
            samples=len(ascending),
            mean=math.fsum(ascending) / len(ascending) if ascending else None,
            p50=percentile(ascending, 50.0),
            p90=percentile(ascending, 90.0),
            p95=percentile(ascending, 95.0),
            p99=percentile(ascending, 99.0),
            p99_9=percentile(ascending, 99.9),
            max=ascending[-1] if ascending else None,
        )

    @classmethod
    def of_histogram(cls, histogram: Histogram) -> Distribution:
        """The same of values that were only counted: percentiles within the histogram's relative error."""

        def quantile(percent: float) -> float | None:
            return histogram.quantile(percent / 100) if histogram.count >= FLOORS[percent] else None

        return cls(
            samples=histogram.count,
            mean=histogram.mean_s,
            p50=quantile(50.0),
            p90=quantile(90.0),
            p95=quantile(95.0),
            p99=quantile(99.0),
            p99_9=quantile(99.9),
            max=histogram.largest_s,
        )

    @property
    def typical(self) -> float | None:
        """The median, or of too few samples their mean."""
        return self.mean if self.p50 is None else self.p50
