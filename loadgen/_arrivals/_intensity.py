"""Poisson arrivals whose rate changes with time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Final

import numpy as np

from loadgen._arrivals._process import Times

__all__ = ["Cumulated", "expected_until", "inhomogeneous"]

Cumulated = Callable[[Times], Times]
"""The expected number of arrivals until each time, at a rate of one; continuous and never falling."""

_GRID: Final = 20_000
"""Points between which the cumulated intensity is taken as straight: 3 ms apart in a minute."""


def expected_until(cumulated: Cumulated, rate_per_s: float, horizon_s: float) -> float:
    return rate_per_s * float(cumulated(np.array([horizon_s]))[0])


def inhomogeneous(
    cumulated: Cumulated,
    rate_per_s: float,
    horizon_s: float,
    rng: np.random.Generator,
    *,
    kinks: Iterable[float] = (),
) -> Times:
    """By the time change: arrivals of rate one in Λ(t) are arrivals of intensity λ(t) in t.

    `kinks` are the times at which the intensity jumps: with them on the grid, jumps stay sharp.
    Source: Çinlar, Introduction to Stochastic Processes, 1975, section 4.7 (inversion).
    """
    inside = np.array([kink for kink in kinks if 0 < kink < horizon_s])
    grid = np.union1d(np.linspace(0.0, horizon_s, _GRID), inside)
    expected = rate_per_s * cumulated(grid)
    drawn = math.ceil(expected[-1] + 8 * math.sqrt(expected[-1]) + 16)
    unit = np.cumsum(rng.exponential(size=drawn))
    times: Times = np.interp(unit[unit < expected[-1]], expected, grid)
    return times[times < horizon_s]
