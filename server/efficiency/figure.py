"""One figure of one row: its value, or why there is none; and what a measure is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from server.efficiency.groups import Group

__all__ = ["Better", "Figure", "Measure", "Section", "absent", "known", "of_engine"]


class Better(StrEnum):
    """Which way a measure ranks; as in the paper, 1 is best."""

    LOWER = "lower"
    HIGHER = "higher"


class Section(StrEnum):
    """The parts of the table, in its order."""

    PAPER = "EfficientLLM"
    SPEED = "speed"
    ENERGY = "energy"
    USE = "use of the device"
    MODEL = "model"


class Figure(NamedTuple):
    """None is unknown; then `why_absent` says why."""

    value: float | None
    why_absent: str | None = None
    note: str | None = None
    """What must be known to read it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """One line of the table."""

    key: str
    """Ends in its unit, as JSON keys do."""
    title: str
    unit: str
    """`ratio`, `s`, `tokens/s`, `W`, `J`, `bytes`, …"""
    better: Better | None
    """None: it is not ranked."""
    section: Section
    figure: Callable[[Group], Figure]
    brief: bool = True
    """Stands in the short table."""


def known(value: float, note: str | None = None) -> Figure:
    return Figure(value, None, note)


def absent(why: str) -> Figure:
    return Figure(None, why)


def of_engine(figure: Callable[[Group], Figure]) -> Callable[[Group], Figure]:
    """A figure that only an engine has; its adapters share it in no way that could be measured."""

    def unless_by_adapter(group: Group) -> Figure:
        return (
            absent("it is the engine's, not an adapter's: ask without `adapter`") if group.by_adapter else figure(group)
        )

    return unless_by_adapter
