"""Options of arrival processes: declared as fields, given as `name=value,…`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final

from loadgen._errors import LoadError

__all__ = ["Option", "option", "options_of", "parse_options"]

_KEY: Final = "arrivals-option"


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One number that a process can be told."""

    name: str
    default: float
    lowest: float
    """The value must be above it, or equal to it if `or_equal`."""
    highest: float
    or_equal: bool
    meaning: str

    def check(self, value: float) -> str | None:
        """What is wrong with a value; None if nothing is."""
        low_enough = value >= self.lowest if self.or_equal else value > self.lowest
        if low_enough and value <= self.highest and math.isfinite(value):
            return None
        bound = f"{'at least' if self.or_equal else 'above'} {self.lowest:g}"
        return bound + (f" and at most {self.highest:g}" if math.isfinite(self.highest) else "")


def option(
    default: float, meaning: str, *, above: float | None = None, at_least: float = 0.0, at_most: float = math.inf
) -> Any:
    """A dataclass field that `--arrivals-options` can set."""
    bounds = {"lowest": at_least if above is None else above, "highest": at_most, "or_equal": above is None}
    return field(default=default, metadata={_KEY: {"default": default, "meaning": meaning, **bounds}})


def options_of(process: type) -> Mapping[str, Option]:
    """By name, in the order of declaration."""
    found = {of.name: of.metadata[_KEY] for of in fields(process) if _KEY in of.metadata}
    return {name: Option(name=name, **declared) for name, declared in found.items()}


def parse_options(name: str, process: type, text: str) -> dict[str, float]:
    """`shape=0.5` for process `name`. Raises `LoadError` naming the option that is wrong and what there is."""
    known = options_of(process)
    values: dict[str, float] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        key, _, written = (piece.strip() for piece in part.partition("="))
        if key not in known:
            raise LoadError(f"--arrivals-options: {name!r} has no option {key!r}; {_has(known)}.")
        if key in values:
            raise LoadError(f"--arrivals-options: {key!r} is given twice.")
        values[key] = _value(known[key], written)
    return values


def _value(of: Option, written: str) -> float:
    try:
        value = float(written)
    except ValueError:
        raise LoadError(f"--arrivals-options: {of.name}={written!r} is no number; write {of.name}=NUMBER.") from None
    wrong = of.check(value)
    if wrong is not None:
        raise LoadError(f"--arrivals-options: {of.name} is {written}; it must be {wrong} ({of.meaning}).")
    return value


def _has(known: Mapping[str, Option]) -> str:
    return f"it has {', '.join(known)}" if known else "it has none"
