"""Arrivals with Weibull-distributed gaps: bursts with long silences."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from loadgen._arrivals._options import option
from loadgen._arrivals._process import Times
from loadgen._arrivals._renewal import renewal

__all__ = ["Weibull"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Weibull:
    """Mean gap 1/rate; k below 1 has a heavy tail, k 1 is Poisson.

    k 0.42 fits the gaps of code requests in the Azure LLM inference trace 2023 (CC-BY 4.0).
    """

    k: float = option(0.42, "the shape: below 1 in bursts, above 1 regular", at_least=0.1)

    def expected(self, rate_per_s: float, horizon_s: float) -> float:
        return rate_per_s * horizon_s

    def schedule(self, rate_per_s: float, horizon_s: float, rng: np.random.Generator) -> Times:
        # The mean of a Weibull distribution is scale · Γ(1 + 1/k).
        scale = 1 / (rate_per_s * math.gamma(1 + 1 / self.k))
        return renewal(lambda n: scale * rng.weibull(self.k, size=n), 1 / rate_per_s, horizon_s)
