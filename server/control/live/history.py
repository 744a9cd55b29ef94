"""The last fifteen minutes, a point a second."""

from __future__ import annotations

from collections import deque
from typing import Any, Final

from server.control.live.frame import Power, Served
from server.units import Seconds

__all__ = ["History"]

_KEPT: Final = Seconds(900.0)
_MOST: Final = 2000
"""Points, if a clock goes astray."""


class History:
    """Two series with times of their own: joules are known later than requests."""

    def __init__(self) -> None:
        self._served: deque[Served] = deque(maxlen=_MOST)
        self._power: deque[Power] = deque(maxlen=_MOST)

    def add(self, served: Served, power: Power | None) -> None:
        """The newest second; what is older than fifteen minutes goes."""
        self._served.append(served)
        if power is not None:
            self._power.append(power)
        for series in (self._served, self._power):
            while series and series[0].at < served.at - _KEPT:
                series.popleft()

    def to_json(self) -> dict[str, Any]:
        return {
            "served": [one.to_json() for one in self._served],
            "power": [one.to_json() for one in self._power],
        }
