"""Steady load with one sudden crowd."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from loadgen._arrivals._intensity import Cumulated, expected_until, inhomogeneous
from loadgen._arrivals._options import option
from loadgen._arrivals._process import Times

__all__ = ["Spike"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spike:
    """Poisson arrivals at `rate`, and at factor·rate for `length` seconds from the share `at` of the run on."""

    factor: float = option(5.0, "how many times the rate", at_least=1)
    at: float = option(0.5, "share of the run after which it begins", at_most=1)
    length: float = option(5.0, "seconds", above=0)

    def expected(self, rate_per_s: float, horizon_s: float) -> float:
        return expected_until(self._cumulated(horizon_s), rate_per_s, horizon_s)

    def schedule(self, rate_per_s: float, horizon_s: float, rng: np.random.Generator) -> Times:
        begin = self.at * horizon_s
        return inhomogeneous(self._cumulated(horizon_s), rate_per_s, horizon_s, rng, kinks=(begin, begin + self.length))

    def _cumulated(self, horizon_s: float) -> Cumulated:
        begin = self.at * horizon_s
        return lambda times: times + (self.factor - 1) * np.clip(times - begin, 0.0, self.length)
