"""Arrivals at equal distances."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from loadgen._arrivals._process import Times

__all__ = ["Constant"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Constant:
    """One request every 1/rate seconds, the first at once."""

    def expected(self, rate_per_s: float, horizon_s: float) -> float:
        return rate_per_s * horizon_s

    def schedule(self, rate_per_s: float, horizon_s: float, rng: np.random.Generator) -> Times:  # noqa: ARG002
        times: Times = np.arange(np.ceil(rate_per_s * horizon_s), dtype=np.float64) / rate_per_s
        return times[times < horizon_s]
