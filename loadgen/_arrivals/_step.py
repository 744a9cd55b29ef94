"""Load that rises in equal steps: a rate ladder within one run."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from loadgen._arrivals._intensity import Cumulated, expected_until, inhomogeneous
from loadgen._arrivals._options import option
from loadgen._arrivals._process import Times

__all__ = ["Step"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Poisson arrivals at rate·1/steps, rate·2/steps, … rate, each for an equal part of the run."""

    steps: float = option(4, "number of steps; parts of one are left out", at_least=1, at_most=1000)

    def expected(self, rate_per_s: float, horizon_s: float) -> float:
        return expected_until(self._cumulated(horizon_s), rate_per_s, horizon_s)

    def schedule(self, rate_per_s: float, horizon_s: float, rng: np.random.Generator) -> Times:
        return inhomogeneous(
            self._cumulated(horizon_s), rate_per_s, horizon_s, rng, kinks=self._bounds(horizon_s).tolist()
        )

    def _bounds(self, horizon_s: float) -> Times:
        return np.linspace(0.0, horizon_s, int(self.steps) + 1)

    def _cumulated(self, horizon_s: float) -> Cumulated:
        steps = int(self.steps)
        reached = np.concatenate(([0.0], np.cumsum(np.arange(1, steps + 1) / steps) * (horizon_s / steps)))
        return lambda times: np.interp(times, self._bounds(horizon_s), reached)
