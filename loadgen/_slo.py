"""What a request must keep to be a good one."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Self

from loadgen._errors import LoadError
from loadgen._record import Record

__all__ = ["BOUNDS", "Slo"]

_ITL_SHARE: Final = 0.95
"""Of an answer's gaps that must keep the bound: one slow chunk in twenty is not felt as a slow answer."""

_UNITS: Final[Mapping[str, float]] = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
_TIME: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(us|ms|s)")


def _itl(record: Record) -> float | None:
    gaps = sorted(record.inter_token_latencies_s)
    if gaps:
        return gaps[math.ceil(round(_ITL_SHARE * len(gaps), 9)) - 1]
    # An answer of one token has no gap that could be too long.
    return 0.0 if record.streamed and record.output_tokens == 1 else None


def _tpot(record: Record) -> float | None:
    if record.streamed and record.output_tokens == 1:
        return 0.0
    return record.time_per_output_token_s


BOUNDS: Final[Mapping[str, Callable[[Record], float | None]]] = {
    "ttft": lambda record: record.time_to_first_token_s,
    "tpot": _tpot,
    "itl": _itl,
    "e2e": lambda record: record.end_to_end_s,
}
"""What can be bounded, and a request's value of it; TTFT and end-to-end count from the scheduled time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slo:
    """Bounds that a request keeps all or is not good; without any bound there is no goodput."""

    bounds_s: Mapping[str, float]

    @classmethod
    def parse(cls, text: str) -> Self:
        """`ttft=200ms,itl=50ms`; an empty text is no bound. Raises `LoadError` naming what is wrong."""
        bounds: dict[str, float] = {}
        for part in filter(None, (piece.strip() for piece in text.split(","))):
            name, _, value = (piece.strip() for piece in part.partition("="))
            if name not in BOUNDS:
                raise LoadError(f"--slo: {part!r} bounds nothing that is measured; bound {', '.join(BOUNDS)}.")
            if name in bounds:
                raise LoadError(f"--slo bounds {name} twice; give it one bound.")
            bounds[name] = _seconds(part, value)
        return cls(bounds_s=bounds)

    def __bool__(self) -> bool:
        return bool(self.bounds_s)

    def __str__(self) -> str:
        return ",".join(f"{name}={seconds * 1e3:g}ms" for name, seconds in self.bounds_s.items())

    def met(self, record: Record) -> bool | None:
        """None: it cannot be judged, for a bound is on something that the answer does not have or say.

        What failed, timed out or was refused is never good.
        """
        if not record.ok:
            return False
        values = [(BOUNDS[name](record), bound) for name, bound in self.bounds_s.items()]
        if any(value is not None and value > bound for value, bound in values):
            return False
        return None if any(value is None for value, _ in values) else True


def _seconds(part: str, text: str) -> float:
    found = _TIME.fullmatch(text)
    seconds = float(found[1]) * _UNITS[found[2]] if found else 0.0
    if seconds <= 0:
        raise LoadError(f"--slo: {part!r} has no time above 0 with its unit; write for example ttft=200ms or e2e=2s.")
    return seconds
