"""A bounded number of seats with a line before them, first come first served."""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from server.units import Seconds

__all__ = ["Seats"]

_Place = asyncio.Future[bool]
"""Done: True with the seat, False when the time is over."""


class Seats:
    """Seats are taken and left; who leaves hands the seat to the first in the line, so nobody can jump it."""

    def __init__(self, count: int) -> None:
        self._free = count
        self._line: OrderedDict[_Place, None] = OrderedDict()

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
        loop = asyncio.get_running_loop()
        place: _Place = loop.create_future()
        self._line[place] = None
        timer = loop.call_later(timeout, self._send_away, place)
        try:
            has_seat = await place
        except asyncio.CancelledError:
            if place in self._line:
                del self._line[place]
            elif not place.cancelled() and place.result():
                self.leave()  # the seat came in the same turn of the loop
            raise
        finally:
            timer.cancel()
        if not has_seat:
            raise TimeoutError

    def leave(self) -> None:
        """Give the seat to the first in the line, else back."""
        while self._line:
            place, _ = self._line.popitem(last=False)
            if not place.done():  # else it was cancelled and its owner did not run yet
                place.set_result(True)
                return
        self._free += 1

    def _send_away(self, place: _Place) -> None:
        if place in self._line and not place.done():
            del self._line[place]
            place.set_result(False)
