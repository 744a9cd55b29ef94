"""What a method of attribution promises, and the values between it and the accountant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

import numpy as np
import numpy.typing as npt

from server.units import Microjoules, Seconds

__all__ = ["Account", "Attribution", "EngineUse", "RequestUses", "Share", "Shares", "Window"]

Integers = npt.NDArray[np.int64]


class Account(StrEnum):
    """Where joules go; a closed vocabulary, it is a metric label."""

    ACTIVE = "active"
    """A request."""
    IDLE = "idle"
    """The engine was up, nobody was running."""
    UNATTRIBUTED = "unattributed"
    """Traffic past the gateway, or work that nobody can be named for."""
    OTHER = "other"
    """On a shared device: the operating system, the gateway, load generators."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineUse:
    """An engine on the window's device."""

    engine: str
    up: bool
    cpu_us: int = 0
    """CPU time of its process tree in the window; only meaningful where the device is shared by CPU time."""
    foreign_millitokens: int = 0
    """Output by its own count that did not go through the gateway, in thousandths."""
    busy: bool = False
    """A worker saw requests running on it."""


def _none() -> Integers:
    return np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RequestUses:
    """The requests that were at an engine in the window: arrays with one entry for each, as there may be thousands."""

    engine: Integers = field(default_factory=_none)
    """Its place in `Window.engines`."""
    millitokens: Integers = field(default_factory=_none)
    """Its work in the window, in thousandths of an output token."""
    overlap_us: Integers = field(default_factory=_none)
    """How long it was there."""

    def __len__(self) -> int:
        return len(self.engine)


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """One device between two readings, and all that is known to have happened on it."""

    device: str
    scope: str
    start: Seconds
    end: Seconds
    energy: Microjoules
    """Never negative."""
    baseline: Microjoules | None = None
    """The part of `energy` that the idle device would have used as well; None: the meter cannot tell."""
    engines: Sequence[EngineUse] = ()
    requests: RequestUses = field(default_factory=RequestUses)
    other_cpu_us: int | None = None
    """CPU time of everything that is no engine; None: the device is not shared by CPU time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """Joules that no request pays."""

    account: Account
    """Not `ACTIVE`."""
    engine: str | None
    """None: no engine in particular."""
    energy: Microjoules


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Shares:
    """A window's energy, shared out."""

    requests: Integers
    """µJ of each of `Window.requests`."""
    others: Sequence[Share]

    @property
    def total(self) -> int:
        return int(self.requests.sum()) + sum(share.energy for share in self.others)


class Attribution(Protocol):
    """Shares a window's energy out."""

    @property
    def method(self) -> str:
        """Its name in `ATTRIBUTIONS`, and the label `method`."""

    @property
    def confidence(self) -> float:
        """How far a single request's joules can be trusted, 0 … 1."""

    def attribute(self, window: Window) -> Shares:
        """The shares; their sum is exactly `window.energy`, none is negative. Pure."""
