"""Arrivals that know nothing of one another: exponential gaps."""

from __future__ import annotations

import math

import numpy as np

from loadgen._arrivals._process import Times

__all__ = ["Poisson"]


class Poisson:
    """A Poisson process: what many independent users look like."""

    def schedule(self, rate_per_s: float, horizon_s: float, rng: np.random.Generator) -> Times:
        expected = rate_per_s * horizon_s
        # Eight standard deviations over the mean: the last drawn arrival lies beyond the horizon.
        drawn = math.ceil(expected + 8 * math.sqrt(expected) + 16)
        times: Times = np.cumsum(rng.exponential(1 / rate_per_s, size=drawn))
        return times[times < horizon_s]
