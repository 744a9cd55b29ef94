"""Histograms of latencies that can be added up without loss."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Final, Self

__all__ = ["RELATIVE_ERROR", "Histogram"]

RELATIVE_ERROR: Final = 0.005
"""Of every quantile: a bucket reaches this share to both sides of the value that stands for it."""

_GROWTH: Final = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)
_LOG_GROWTH: Final = math.log(_GROWTH)
_SMALLEST_S: Final = 1e-9
"""What is shorter than the clock's own step counts as nothing."""


class Histogram:
    """Counts in buckets whose bounds grow geometrically: bucket i holds the values in (g^(i-1), g^i], in seconds.

    With g = (1 + a)/(1 - a) the value 2·g^i/(g + 1) is within the share a of everything in bucket i (DDSketch,
    arXiv 1908.10693). Bounds are the same everywhere: the sum of two histograms is the histogram of all their values.
    """

    __slots__ = ("_counts", "_nothing", "count", "largest_s", "smallest_s", "sum_s")

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self._nothing = 0
        self.count = 0
        self.sum_s = 0.0
        self.smallest_s: float | None = None
        self.largest_s: float | None = None

    @classmethod
    def of(cls, values: Iterable[float]) -> Self:
        histogram = cls()
        for value in values:
            histogram.add(value)
        return histogram

    def add(self, seconds: float, times: int = 1) -> None:
        """Count a value; what is negative counts as 0."""
        seconds = max(0.0, seconds)
        if seconds < _SMALLEST_S:
            self._nothing += times
        else:
            bucket = math.ceil(math.log(seconds) / _LOG_GROWTH)
            self._counts[bucket] = self._counts.get(bucket, 0) + times
        self.count += times
        self.sum_s += seconds * times
        self._stretch(seconds, seconds)

    def merge(self, other: Histogram) -> None:
        """Take in everything that `other` has counted."""
        for bucket, times in other._counts.items():
            self._counts[bucket] = self._counts.get(bucket, 0) + times
        self._nothing += other._nothing
        self.count += other.count
        self.sum_s += other.sum_s
        if other.smallest_s is not None and other.largest_s is not None:
            self._stretch(other.smallest_s, other.largest_s)

    @property
    def mean_s(self) -> float | None:
        return self.sum_s / self.count if self.count else None

    def quantile(self, share: float) -> float | None:
        """The nearest-rank quantile, 0 ≤ share ≤ 1, within RELATIVE_ERROR; None of nothing."""
        # Rounded first: 0.999 · 10000 is a hair over 9990 in binary.
        rank = max(1, math.ceil(round(share * self.count, 9)))
        below = 0
        for value, times in self._ascending():
            below += times
            if below >= rank:
                return value
        return None

    def cdf(self) -> list[tuple[float, float]]:
        """(seconds, share of the values that are no longer), ascending; ends with share 1."""
        points, below = [], 0
        for value, times in self._ascending():
            below += times
            points.append((value, below / self.count))
        return points

    def to_json(self) -> dict[str, Any]:
        return {
            "relative_error": RELATIVE_ERROR,
            "counts": sorted(self._counts.items()),
            "nothing": self._nothing,
            "sum_s": self.sum_s,
            "smallest_s": self.smallest_s,
            "largest_s": self.largest_s,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Raises ValueError for buckets of another width."""
        if data["relative_error"] != RELATIVE_ERROR:
            raise ValueError(
                f"a histogram of relative error {data['relative_error']} cannot be read as {RELATIVE_ERROR}"
            )
        histogram = cls()
        histogram._counts = {int(bucket): int(times) for bucket, times in data["counts"]}
        histogram._nothing = int(data["nothing"])
        histogram.count = histogram._nothing + sum(histogram._counts.values())
        histogram.sum_s = float(data["sum_s"])
        histogram.smallest_s, histogram.largest_s = data["smallest_s"], data["largest_s"]
        return histogram

    def __eq__(self, other: object) -> bool:
        """The same counts and the same ends; sums depend on the order of adding by their last digits."""
        return isinstance(other, Histogram) and (
            (self._counts, self._nothing, self.smallest_s, self.largest_s)
            == (other._counts, other._nothing, other.smallest_s, other.largest_s)
        )

    __hash__ = None  # type: ignore[assignment]  # it changes

    def _stretch(self, smallest: float, largest: float) -> None:
        self.smallest_s = smallest if self.smallest_s is None else min(self.smallest_s, smallest)
        self.largest_s = largest if self.largest_s is None else max(self.largest_s, largest)

    def _ascending(self) -> Iterable[tuple[float, int]]:
        """Each bucket's value, never outside of what was seen, and its count."""
        if self._nothing:
            yield 0.0, self._nothing
        for bucket, times in sorted(self._counts.items()):
            value = 2 * _GROWTH**bucket / (_GROWTH + 1)
            yield min(max(value, self.smallest_s or 0.0), self.largest_s or value), times
