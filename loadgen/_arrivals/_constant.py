"""Arrivals at equal distances."""

from __future__ import annotations

import numpy as np

from loadgen._arrivals._process import Times

__all__ = ["Constant"]


class Constant:
    """One request every 1/rate seconds, the first at once."""

    def schedule(self, rate_per_s: float, horizon_s: float, rng: np.random.Generator) -> Times:  # noqa: ARG002
        times: Times = np.arange(np.ceil(rate_per_s * horizon_s), dtype=np.float64) / rate_per_s
        return times[times < horizon_s]
