"""Time covered by intervals that come in any order and overlap."""

from __future__ import annotations

from bisect import bisect_left, bisect_right

import numpy as np
import numpy.typing as npt

from server.units import Seconds

__all__ = ["Spans"]

Floats = npt.NDArray[np.float64]

_LIMIT = 512
"""Disjoint intervals kept; the oldest become a plain sum, to which late overlaps are added twice."""


class Spans:
    """A union of intervals in bounded memory."""

    def __init__(self) -> None:
        self._starts: list[float] = []
        self._ends: list[float] = []
        self._folded = 0.0

    def add(self, start: float, end: float) -> None:
        """Cover start … end, too."""
        if end <= start:
            return
        first = bisect_left(self._ends, start)
        last = bisect_right(self._starts, end)
        if first < last:
            start, end = min(start, self._starts[first]), max(end, self._ends[last - 1])
        self._starts[first:last], self._ends[first:last] = [start], [end]
        if len(self._starts) > _LIMIT:
            self._folded += self._ends.pop(0) - self._starts.pop(0)

    def add_all(self, starts: Floats, ends: Floats) -> None:
        """Cover each starts[i] … ends[i], too."""
        real = ends > starts
        order = np.argsort(starts[real])
        starts, ends = starts[real][order], np.maximum.accumulate(ends[real][order])
        apart = starts[1:] > ends[:-1]
        first, last = np.append(True, apart), np.append(apart, True)
        if len(starts):
            for start, end in zip(starts[first].tolist(), ends[last].tolist(), strict=True):
                self.add(start, end)

    def covered(self) -> Seconds:
        """Length of the union."""
        return Seconds(self._folded + sum(end - start for start, end in zip(self._starts, self._ends, strict=True)))

    def copy(self) -> Spans:
        result = Spans()
        result._starts, result._ends, result._folded = self._starts.copy(), self._ends.copy(), self._folded
        return result

    def __add__(self, other: Spans) -> Spans:
        """The union of both, as a new value."""
        result = self.copy()
        result._folded += other._folded
        for start, end in zip(other._starts, other._ends, strict=True):
            result.add(start, end)
        return result
