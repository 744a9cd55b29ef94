"""How fast places come free, for those who are told to come back later."""

from __future__ import annotations

from typing import Final

from server.units import Seconds

__all__ = ["Pace"]

_SHORTEST: Final = Seconds(1.0)
_LONGEST: Final = Seconds(60.0)
_MEMORY: Final = 0.1
"""Part of the mean that the newest gap makes: the last twenty or so count."""


class Pace:
    """The mean time between two requests that end while others wait; time without anybody waiting does not count."""

    def __init__(self) -> None:
        self._gap: float | None = None
        self._last = Seconds(0.0)
        self._number = -1
        """Of the request that ended at `_last`."""

    def ended(self, now: Seconds, number: int) -> None:
        """A request has ended, for which somebody waited. `number` counts all that ended, waited for or not."""
        if self._number == number - 1:
            gap = now - self._last
            self._gap = gap if self._gap is None else self._gap + _MEMORY * (gap - self._gap)
        self._last, self._number = now, number

    def wait(self, ahead: int, now: Seconds, number: int) -> Seconds:
        """When to come back, with so many ahead and `number` ended: 1 … 60 s; 1 s while nothing is known."""
        if self._gap is None:
            return _SHORTEST
        silence = now - self._last if self._number == number else 0.0
        return Seconds(min(_LONGEST, max(_SHORTEST, ahead * max(self._gap, silence))))
