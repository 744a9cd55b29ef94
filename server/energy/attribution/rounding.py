"""Splits an integer by weights without losing a unit."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

__all__ = ["split"]

_MAX_INT64: Final = 2**63 - 1


def split(total: int, weights: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Parts of `total` in proportion to `weights`, with Σ parts = total; each is within 1 of its exact share.

    Largest remainder: parts are rounded down, then the units left go to the largest fractions, the first of equal ones.
    All in integers, so that it is exact at any size. Raises `ValueError` for negative input or no weight at all.
    """
    whole = int(weights.sum())
    if whole <= 0 or total < 0 or weights.min() < 0:
        raise ValueError("Split needs a total and weights that are not negative, and a weight above 0.")
    # Where products leave 64 bits, Python's own integers go on, some hundred times as slow.
    wide: npt.NDArray[Any] = weights.astype(object) if total * int(weights.max()) > _MAX_INT64 else weights
    products = wide * total
    parts = products // whole
    left = total - int(parts.sum())
    if left:
        parts[np.argsort(parts * whole - products, kind="stable")[:left]] += 1
    return parts.astype(np.int64)
