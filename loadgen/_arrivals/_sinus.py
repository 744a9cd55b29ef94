"""Load that swings, as a day does."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from loadgen._arrivals._intensity import expected_until, inhomogeneous
from loadgen._arrivals._options import option
from loadgen._arrivals._process import Times

__all__ = ["Sinus"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sinus:
    """Poisson arrivals at rate·(1 + amplitude·sin(2πt/period)); `rate` is the mean over whole periods."""

    amplitude: float = option(0.5, "share of the rate", at_most=1)
    period: float = option(60.0, "seconds", above=0)

    def expected(self, rate_per_s: float, horizon_s: float) -> float:
        return expected_until(self._cumulated, rate_per_s, horizon_s)

    def schedule(self, rate_per_s: float, horizon_s: float, rng: np.random.Generator) -> Times:
        return inhomogeneous(self._cumulated, rate_per_s, horizon_s, rng)

    def _cumulated(self, times: Times) -> Times:
        turn = 2 * np.pi / self.period
        swung: Times = times + self.amplitude * (1 - np.cos(turn * times)) / turn
        return swung
