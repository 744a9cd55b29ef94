"""Where to look next for the highest level that a server carries."""

from __future__ import annotations

import math
from typing import Final

__all__ = ["Search"]

_FACTOR: Final = 2.0
"""Between levels while only one side of the bracket is known."""
_PRECISION: Final = 0.1
"""The bracket is narrow enough when its upper end is that share above its lower."""
_MAX_LEVELS: Final = 16
_MAX_HALVINGS: Final = 6
"""While nothing has passed: a first level that is 64 times too high is a mistake, not a bracket."""


class Search:
    """Doubles or halves until one level has passed and a higher one has failed; then halves the distance, in ratios.

    That a level passes by chance, or fails by one, is possible: the levels tried are all in the curve.
    """

    def __init__(self, first: float, *, whole: bool) -> None:
        self.best: float | None = None
        """The highest level that passed, with none below it that failed."""
        self.failed: float | None = None
        """The lowest level that failed."""
        self._first = first
        self._whole = whole
        self._tried = 0

    def next(self) -> float | None:
        """The next level to try; None when the answer is known, or there is none."""
        if self._tried >= _MAX_LEVELS:
            return None
        if self.best is None and self.failed is None:
            return self._first
        level = self._between()
        return None if level is None or level in {self.best, self.failed} else level

    def tell(self, level: float, *, passed: bool) -> None:
        self._tried += 1
        if passed:
            self.best = level if self.best is None else max(level, self.best)
        else:
            self.failed = level if self.failed is None else min(level, self.failed)

    def _between(self) -> float | None:
        if self.failed is None:
            return self._rounded((self.best or self._first) * _FACTOR)
        if self.best is None:
            level = self._rounded(self.failed / _FACTOR)
            return level if level > 0 and self._tried <= _MAX_HALVINGS else None
        if self.failed <= self.best * (1 + _PRECISION):
            return None
        level = self._rounded(math.sqrt(self.best * self.failed))
        return max(level, self.best + 1) if self._whole else level

    def _rounded(self, level: float) -> float:
        """Rates to three digits: nobody measures more."""
        return float(math.floor(level)) if self._whole else float(f"{level:.3g}")
