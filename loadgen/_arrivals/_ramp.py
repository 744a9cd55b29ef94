"""Load that grows, or falls, along a straight line."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from loadgen._arrivals._intensity import Cumulated, expected_until, inhomogeneous
from loadgen._arrivals._options import option
from loadgen._arrivals._process import Times

__all__ = ["Ramp"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ramp:
    """Poisson arrivals from start·rate at the beginning to end·rate at the end of the run."""

    start: float = option(0.1, "share of the rate at the beginning")
    end: float = option(1.0, "share of the rate at the end", above=0)

    def expected(self, rate_per_s: float, horizon_s: float) -> float:
        return expected_until(self._cumulated(horizon_s), rate_per_s, horizon_s)

    def schedule(self, rate_per_s: float, horizon_s: float, rng: np.random.Generator) -> Times:
        return inhomogeneous(self._cumulated(horizon_s), rate_per_s, horizon_s, rng)

    def _cumulated(self, horizon_s: float) -> Cumulated:
        slope = (self.end - self.start) / horizon_s
        return lambda times: self.start * times + slope * times**2 / 2
