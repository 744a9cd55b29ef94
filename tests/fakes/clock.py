"""A clock that stands until it is told to go on."""

from __future__ import annotations

from server.units import Seconds

__all__ = ["FakeClock"]


class FakeClock:
    """Monotonic and wall time, with a fixed distance between them."""

    def __init__(self, monotonic: float = 1000.0, wall: float = 1_800_000_000.0) -> None:
        self._monotonic = monotonic
        self._epoch = wall - monotonic

    def monotonic(self) -> Seconds:
        return Seconds(self._monotonic)

    def wall(self) -> Seconds:
        return Seconds(self._epoch + self._monotonic)

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._monotonic += seconds
