"""Draws that any process can repeat."""

from __future__ import annotations

import numpy as np

__all__ = ["Zipf", "generator"]


def generator(seed: int, stream: int, index: int) -> np.random.Generator:
    """The same for the same three numbers; `stream` says what is drawn."""
    return np.random.default_rng((seed, stream, index))


class Zipf:
    """Ranks 0 … n-1, the k-th as likely as k^-power; power 0 is uniform."""

    def __init__(self, ranks: int, power: float) -> None:
        weights = np.arange(1, ranks + 1, dtype=np.float64) ** -power
        self._bounds = np.cumsum(weights) / weights.sum()

    def draw(self, rng: np.random.Generator, size: int = 1) -> list[int]:
        """May repeat."""
        found = np.searchsorted(self._bounds, rng.random(size), side="right")
        return [int(rank) for rank in np.minimum(found, len(self._bounds) - 1)]
