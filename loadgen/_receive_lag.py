"""How late this process reads what has arrived."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, Final

from loadgen._histogram import Histogram

__all__ = ["ReceiveLag"]

_MEAN_WAIT_S: Final = 0.01
"""Between two looks: the 662 that a 99th percentile needs are there after 7 s."""


class ReceiveLag:
    """Waits that end at known moments: what they overstay, an arrived chunk waits too before it is read.

    Timers and sockets become ready in the same turn of the loop. The waits are drawn from an exponential distribution:
    looks at even distances could fall into step with the chunks.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.histogram = Histogram()
        self._clock = clock
        # Not of the run's seed: these draws decide nothing that is sent.
        self._draw = random.Random(0)  # noqa: S311  # no secret

    def watch(self, stopping: Any) -> None:
        """Look until `stopping`, a gevent Event, is set; in a greenlet of its own."""
        while True:
            wait_s = self._draw.expovariate(1 / _MEAN_WAIT_S)
            due = self._clock() + wait_s
            if stopping.wait(wait_s):
                return
            self.histogram.add(self._clock() - due)
