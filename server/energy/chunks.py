"""When token chunks came, until all windows that they lie in are closed."""

from __future__ import annotations

import numpy as np

from server.energy.columns import Floats, Integers

__all__ = ["Chunks"]

_NO_TIMES = np.zeros(0, np.float64)
_NO_KEYS = np.zeros(0, np.int64)


class Chunks:
    """Times, and the keys of the requests whose they are; kept as they come, one pair of arrays for each batch."""

    def __init__(self) -> None:
        self._pairs: list[tuple[Floats, Integers, float, float]] = []
        """Times, keys, the first time and the last."""

    def add(self, times: Floats, keys: Integers) -> None:
        """At least one."""
        self._pairs.append((times, keys, float(times.min()), float(times.max())))

    def within(self, start: float, end: float) -> tuple[Floats, Integers]:
        """Those of start ≤ t < end, in the order of time."""
        times, keys = [_NO_TIMES], [_NO_KEYS]
        for some, of_each, first, last in self._pairs:
            if last >= start and first < end:
                inside = (some >= start) & (some < end)
                times.append(some[inside])
                keys.append(of_each[inside])
        joined = np.concatenate(times)
        order = np.argsort(joined, kind="stable")
        return joined[order], np.concatenate(keys)[order]

    def before(self, at: float) -> Integers:
        """The keys of those that came before `at` and are not forgotten: one for each chunk."""
        keys = [of_each[some < at] for some, of_each, first, _ in self._pairs if first < at]
        return np.concatenate([_NO_KEYS, *keys])

    def forget(self, before: float) -> Integers:
        """Forget the batches that end before `before`; the keys of their chunks."""
        gone = [of_each for _, of_each, _, last in self._pairs if last < before]
        if gone:
            self._pairs = [pair for pair in self._pairs if pair[3] >= before]
        return np.concatenate([_NO_KEYS, *gone])
