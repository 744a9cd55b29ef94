"""Schedules of independent gaps of one distribution."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import numpy as np

from loadgen._arrivals._process import Times

__all__ = ["renewal"]

_SPARE: Final = 16


def renewal(gaps: Callable[[int], Times], mean_gap_s: float, horizon_s: float) -> Times:
    """Cumulated gaps up to the horizon; `gaps(n)` draws n of them, `mean_gap_s` long on average."""
    expected = horizon_s / mean_gap_s
    drawn = np.empty(0)
    reached = 0.0
    # A few standard deviations over the mean nearly always suffice at once; bursts may take another turn.
    while reached < horizon_s:
        left = max(1.0, expected * (1 - reached / horizon_s))
        more = np.cumsum(gaps(math.ceil(left + 4 * math.sqrt(left)) + _SPARE)) + reached
        drawn = np.concatenate((drawn, more))
        reached = float(more[-1])
    times: Times = drawn[drawn < horizon_s]
    return times
