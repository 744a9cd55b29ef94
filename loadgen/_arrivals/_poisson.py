"""Arrivals that know nothing of one another: exponential gaps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from loadgen._arrivals._process import Times
from loadgen._arrivals._renewal import renewal

__all__ = ["Poisson"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Poisson:
    """A Poisson process: what many independent users look like."""

    def expected(self, rate_per_s: float, horizon_s: float) -> float:
        return rate_per_s * horizon_s

    def schedule(self, rate_per_s: float, horizon_s: float, rng: np.random.Generator) -> Times:
        return renewal(lambda n: rng.exponential(1 / rate_per_s, size=n), 1 / rate_per_s, horizon_s)
