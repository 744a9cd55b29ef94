"""The contract of an arrival process."""

from __future__ import annotations

from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

__all__ = ["MAX_ARRIVALS", "ArrivalProcess", "Times"]

Times = npt.NDArray[np.float64]
"""(arrivals,), seconds since the start of the run, ascending."""

MAX_ARRIVALS: Final = 5_000_000
"""A longer schedule is refused: it would take more memory (40 MB) than one generator can send in a day."""


class ArrivalProcess(Protocol):
    """Says when requests are sent, whatever the server does meanwhile.

    An implementation is a frozen dataclass; its fields made by `option` are what `--arrivals-options` may set.
    """

    def expected(self, rate_per_s: float, horizon_s: float) -> float:
        """How many arrivals `schedule` gives on average over seeds (exact for long horizons)."""

    def schedule(self, rate_per_s: float, horizon_s: float, rng: np.random.Generator) -> Times:
        """Every arrival in [0, `horizon_s`); what `rate_per_s` means is the process's own matter.

        Absolute times, made before the first request is sent, so that a slow server cannot thin them out. The same
        `rng` state gives the same schedule. `rate_per_s` and `horizon_s` are above 0.
        """
