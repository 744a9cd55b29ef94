"""Arrivals as a trace file recorded them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from loadgen._arrivals._options import option
from loadgen._arrivals._process import Times

__all__ = ["Trace"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trace:
    """The times of the workload's file, once; with a rate the whole trace is stretched or squeezed to that mean."""

    times_s: Times = field(default_factory=lambda: np.empty(0))
    """As recorded, from the first request on, ascending."""
    speed: float = option(1.0, "how many times faster than recorded, where no --rate is given", above=0)
    grid: float = option(0.0, "seconds: the resolution of the file's clock, within which arrivals are scattered")

    def expected(self, rate_per_s: float, horizon_s: float) -> float:
        return float(np.count_nonzero(self._stretched(rate_per_s, self.times_s) < horizon_s))

    def schedule(self, rate_per_s: float, horizon_s: float, rng: np.random.Generator) -> Times:
        scattered = self.times_s + rng.random(len(self.times_s)) * self.grid if self.grid else self.times_s
        times = np.sort(self._stretched(rate_per_s, scattered))
        return times[times < horizon_s]

    def _stretched(self, rate_per_s: float, times: Times) -> Times:
        recorded_s = float(self.times_s[-1]) if len(self.times_s) else 0.0
        if rate_per_s > 0 and recorded_s > 0:
            return times * ((len(self.times_s) - 1) / (recorded_s * rate_per_s))
        return times / self.speed
