"""The injected clocks: monotonic for intervals, wall for what people read."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol, cast

from server.units import Seconds

__all__ = ["Clock", "SystemClock"]


class Clock(Protocol):
    """Tells the time. Intervals are differences of `monotonic`; `wall` is only ever shown or stored."""

    def monotonic(self) -> Seconds:
        """Seconds of CLOCK_MONOTONIC: one scale for all processes of a host, never set back."""

    def wall(self) -> Seconds:
        """Seconds since the Unix epoch, as the operating system believes."""


class SystemClock:
    """The operating system's clocks."""

    # As it is: it is asked for every chunk, and a Python function around it would cost more than the answer.
    monotonic = staticmethod(cast("Callable[[], Seconds]", time.monotonic))

    def wall(self) -> Seconds:
        return Seconds(time.time())  # noqa: TID251  # the one place that may ask
