"""How late the event loop is: what everything in the process waits for when it is busy."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

from server.clock import Clock

__all__ = ["LoopLag"]

_TICK: Final = 0.1
_MAX_KEPT: Final = 1000


class LoopLag:
    """Sleeps a fixed time again and again, and remembers by how much it overslept each time."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lags: deque[float] = deque(maxlen=_MAX_KEPT)

    def take(self) -> list[float]:
        """The delays since the last call, in seconds; the newest thousand."""
        lags = list(self._lags)
        self._lags.clear()
        return lags

    async def run(self) -> None:
        """Measure until cancelled."""
        while True:
            due = self._clock.monotonic() + _TICK
            await asyncio.sleep(_TICK)
            self._lags.append(max(0.0, self._clock.monotonic() - due))
