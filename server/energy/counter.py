"""A hardware counter that wraps, restarts or jumps, as a total that never falls."""

from __future__ import annotations

from typing import Final

from server.units import MICROJOULES_PER_JOULE, Joules, Microjoules, Seconds, Watts

__all__ = ["JUMPED", "EnergyCounter"]

JUMPED: Final = "its counter jumped, and what it used meanwhile is not known"
"""Why a device has no reading now."""

_SLACK: Final = Seconds(1.0)
"""Counters move in steps (NVML's every 100 ms), and readings come late: what this much more time allows is believed."""


class EnergyCounter:
    """Adds up what a counter gains. `most` is more power than the device can draw: it tells a gain from a jump.

    A counter that falls has wrapped, if it has a `wraps_at` and the gain across it is possible; else it has begun again
    at 0. A gain that would need more power is not counted, nor what a counter gained while it may have wrapped more
    than once: nobody knows what the device used then. So the total is never too high, also where another device
    answers in the place of this one.
    """

    def __init__(self, *, most: Watts, wraps_at: Microjoules | None = None) -> None:
        self._most = most
        self._wraps_at = wraps_at
        self._last: tuple[Seconds, int] | None = None
        self._total = 0

    def advance(self, count: Microjoules, at: Seconds) -> Joules | None:
        """The counter stands at `count`; returns the total, which begins with the first `count`.

        None: the gain is not known. From the next reading on it is, again.
        """
        gain: int | None = count
        if self._last is not None:
            then, before = self._last
            limit = int(self._most * (at - then + _SLACK) * MICROJOULES_PER_JOULE)
            gain = self._gain(before, count, limit)
        self._last = (at, count)
        self._total += gain or 0
        return None if gain is None else Joules(self._total / MICROJOULES_PER_JOULE)

    def _gain(self, before: int, count: int, limit: int) -> int | None:
        if self._wraps_at is not None and limit >= self._wraps_at:
            return None
        gain = count - before
        if gain < 0 and self._wraps_at is not None:
            gain += self._wraps_at
            gain = gain if 0 <= gain <= limit else count
        elif gain < 0:
            gain = count
        return gain if gain <= limit else None
