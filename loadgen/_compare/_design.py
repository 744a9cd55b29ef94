"""Which run comes when: levels of load, blocks in random order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from loadgen._compare._metrics import Loop

__all__ = ["TWIN", "Level", "Run", "block_of", "twin_of"]

TWIN: Final = " (A/A)"
"""Follows the reference's name where it runs a second time in each block."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Level:
    """So many requests in flight (closed loop), or so many a second (open loop)."""

    loop: Loop
    value: float

    @property
    def title(self) -> str:
        return f"{self.value:.4g} in flight" if self.loop == "closed" else f"{self.value:.4g} requests/s"

    @property
    def slug(self) -> str:
        return f"{self.loop}-{self.value:.4g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One load on one configuration: the unit that is replicated."""

    block: int
    """From 1."""
    level: Level
    configuration: str
    """The reference's twin has a name of its own."""

    @property
    def key(self) -> str:
        """The name of its folder."""
        return f"b{self.block:02d}-{self.level.slug}-{self.configuration.replace(TWIN, '-again')}"


def twin_of(reference: str) -> str:
    return reference + TWIN


def block_of(
    block: int, *, configurations: Sequence[str], levels: Sequence[Level], seed: int, restarts: bool
) -> list[Run]:
    """Every configuration, and the reference's twin, once at every level, in an order drawn for this block.

    A level's runs stand side by side, so that a slow drift of the machine is in both sides of a ratio. Where
    configurations need an engine to be started anew, a configuration's levels stand together instead.
    `configurations` begins with the reference.
    """
    rng = np.random.default_rng((seed, block))
    names = [*configurations, twin_of(configurations[0])]

    def shuffled(count: int) -> list[int]:
        return [int(index) for index in rng.permutation(count)]

    if restarts:
        pairs = [(level, name) for name in shuffled(len(names)) for level in shuffled(len(levels))]
    else:
        pairs = [(level, name) for level in shuffled(len(levels)) for name in shuffled(len(names))]
    return [Run(block=block, level=levels[level], configuration=names[name]) for level, name in pairs]
