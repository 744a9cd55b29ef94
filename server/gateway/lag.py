"""How late the event loop is: what every request waits for when it is busy."""

from __future__ import annotations

import asyncio
from typing import Final

from server.clock import Clock
from server.units import Seconds

__all__ = ["LoopLag"]

_TICK: Final = 0.1


class LoopLag:
    """Sleeps a fixed time again and again, and remembers by how much it overslept."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._longest = 0.0

    def take(self) -> Seconds:
        """The longest delay since the last call."""
        longest, self._longest = self._longest, 0.0
        return Seconds(longest)

    async def run(self) -> None:
        """Measure until cancelled."""
        while True:
            due = self._clock.monotonic() + _TICK
            await asyncio.sleep(_TICK)
            self._longest = max(self._longest, self._clock.monotonic() - due)
