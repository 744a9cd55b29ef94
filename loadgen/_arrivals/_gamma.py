"""Arrivals with gamma-distributed gaps: from bursts to a metronome."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from loadgen._arrivals._options import option
from loadgen._arrivals._process import Times
from loadgen._arrivals._renewal import renewal

__all__ = ["Gamma"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gamma:
    """Mean gap 1/rate, coefficient of variation 1/√shape; shape 1 is Poisson.

    Gaps of the Azure LLM inference trace 2023 (CC-BY 4.0): chat 0.87, code 0.23.
    """

    shape: float = option(0.87, "below 1 in bursts, above 1 regular", at_least=0.01)

    def expected(self, rate_per_s: float, horizon_s: float) -> float:
        return rate_per_s * horizon_s

    def schedule(self, rate_per_s: float, horizon_s: float, rng: np.random.Generator) -> Times:
        scale = 1 / (rate_per_s * self.shape)
        return renewal(lambda n: rng.gamma(self.shape, scale, size=n), 1 / rate_per_s, horizon_s)
