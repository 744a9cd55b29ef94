"""Units as types: what a float means while it is inside the program."""

from __future__ import annotations

from typing import Final, NewType

__all__ = ["JOULES_PER_MICROJOULE", "MICROJOULES_PER_JOULE", "Bytes", "Joules", "Microjoules", "Seconds", "Watts"]

Seconds = NewType("Seconds", float)
"""A duration, or a reading of CLOCK_MONOTONIC; the name of the variable says which (`…_s`, `…_at`)."""

Joules = NewType("Joules", float)
Watts = NewType("Watts", float)
Bytes = NewType("Bytes", int)

Microjoules = NewType("Microjoules", int)
"""Energy as an integer, so that shares of a meter reading can add up exactly."""

JOULES_PER_MICROJOULE: Final = 1e-6
MICROJOULES_PER_JOULE: Final = 1_000_000
