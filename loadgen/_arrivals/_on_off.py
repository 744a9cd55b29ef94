"""Load in strokes: Poisson arrivals for a while, then silence."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from loadgen._arrivals._intensity import expected_until, inhomogeneous
from loadgen._arrivals._options import option
from loadgen._arrivals._process import Times

__all__ = ["OnOff"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OnOff:
    """`rate` is the mean over whole periods: while it is on, (on + off)/on times as many come."""

    on: float = option(5.0, "seconds of load", above=0)
    off: float = option(10.0, "seconds of silence")

    def expected(self, rate_per_s: float, horizon_s: float) -> float:
        return expected_until(self._cumulated, rate_per_s, horizon_s)

    def schedule(self, rate_per_s: float, horizon_s: float, rng: np.random.Generator) -> Times:
        starts = np.arange(0.0, horizon_s, self.on + self.off)
        kinks = np.concatenate((starts, starts + self.on))
        return inhomogeneous(self._cumulated, rate_per_s, horizon_s, rng, kinks=kinks)

    def _cumulated(self, times: Times) -> Times:
        period = self.on + self.off
        whole, rest = np.divmod(times, period)
        inside: Times = whole * period + np.minimum(rest, self.on) * (period / self.on)
        return inside
