"""Axes: from values to places, and the round numbers on the way."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

__all__ = ["Scale", "scale_of", "shown"]

_STEPS: Final = (1.0, 2.0, 2.5, 5.0, 10.0)
_WANTED: Final = 5
_MOST: Final = 7
_PADDING: Final = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Values from `low` to `high` onto the stretch from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool

    def place(self, value: float) -> float:
        low, high, value = (math.log(v) if self.logarithmic else v for v in (self.low, self.high, value))
        return self.start + (self.end - self.start) * (value - low) / (high - low)

    def ticks(self) -> list[float]:
        return _log_ticks(self.low, self.high) if self.logarithmic else _linear_ticks(self.low, self.high)

    @property
    def middle(self) -> float:
        return (self.start + self.end) / 2


def scale_of(
    values: Iterable[float], *, start: float, end: float, logarithmic: bool = False, from_zero: bool = False
) -> Scale:
    """Wide enough for all values, with some room; a logarithmic one leaves out what is not above 0."""
    known = [value for value in values if math.isfinite(value) and (value > 0 or not logarithmic)]
    low, high = (min(known), max(known)) if known else (1.0, 10.0)
    if logarithmic:
        room = max((high / low) ** _PADDING, 1.05)
        return Scale(low=low / room, high=high * room, start=start, end=end, logarithmic=True)
    low = min(0.0, low) if from_zero else low
    room = (high - low) * _PADDING or abs(high) * _PADDING or 1.0
    return Scale(
        low=low if from_zero and low == 0 else low - room, high=high + room, start=start, end=end, logarithmic=False
    )


def shown(value: float) -> str:
    """A tick's label: as few digits as tell it."""
    if value == 0:
        return "0"
    if abs(value) >= 10_000:
        return f"{value / 1000:,.10g}k"
    return f"{value:,.10g}" if abs(value) >= 0.001 else f"{value:.3g}"


def _linear_ticks(low: float, high: float) -> list[float]:
    rough = (high - low) / _WANTED
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * one for one in _STEPS if power * one >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in ((1, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,)):
        found = [digit * 10.0**power for power in decades for digit in digits if low <= digit * 10.0**power <= high]
        if len(found) <= _MOST:
            break
    found = found[:: math.ceil(len(found) / _MOST)] if found else []
    return found if len(found) > 1 else _linear_ticks(low, high)
