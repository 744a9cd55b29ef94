"""A bounded number of seats with a line before them, first come first served."""

from __future__ import annotations

import asyncio
from collections import deque

from server.units import Seconds

__all__ = ["Seats"]


class Seats:
    """Seats are taken and left; who leaves hands the seat to the first in the line, so nobody can jump it."""

    def __init__(self, count: int) -> None:
        self._free = count
        self._line: deque[asyncio.Future[None]] = deque()

    @property
    def waiting(self) -> int:
        """How many stand in the line."""
        return len(self._line)

    def take_now(self) -> bool:
        """Take a seat if one is free."""
        if self._free == 0:
            return False
        self._free -= 1
        return True

    async def take(self, timeout: Seconds) -> None:
        """Stand in the line; raises `TimeoutError` without a seat. May be cancelled."""
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._line.append(place)
        try:
            async with asyncio.timeout(timeout):
                await place
        except (asyncio.CancelledError, TimeoutError):
            if place.done() and not place.cancelled():
                self.leave()  # the seat came in the same turn of the loop
            elif place in self._line:
                self._line.remove(place)
            raise

    def leave(self) -> None:
        """Give the seat to the first in the line, else back."""
        while self._line:
            place = self._line.popleft()
            if not place.done():
                place.set_result(None)
                return
        self._free += 1
