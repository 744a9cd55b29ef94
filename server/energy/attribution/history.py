"""The last so many rows of numbers."""

from __future__ import annotations

from typing import Final

import numpy as np

from server.energy.attribution.attribution import Floats

__all__ = ["History"]

_DUE: Final = 0.05


class History:
    """A ring of rows, (capacity, columns)."""

    def __init__(self, capacity: int, columns: int) -> None:
        self._ring: Floats = np.zeros((capacity, columns))
        self._count = self._fitted = 0

    def __len__(self) -> int:
        return min(self._count, len(self._ring))

    def due(self) -> bool:
        """It has grown by a twentieth since this was last so: time for a new fit."""
        if self._count - self._fitted < max(1, _DUE * len(self)):
            return False
        self._fitted = self._count
        return True

    def add(self, rows: Floats) -> None:
        """At most as many as there is room for, the oldest leaving."""
        capacity = len(self._ring)
        rows = rows[-capacity:]
        self._ring[(self._count + np.arange(len(rows))) % capacity] = rows
        self._count += len(rows)

    @property
    def rows(self) -> Floats:
        """In no particular order."""
        return self._ring[: len(self)]
