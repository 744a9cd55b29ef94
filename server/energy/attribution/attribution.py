"""What a method of attribution promises, and the values between it and the accountant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from server.units import Microjoules, Seconds

__all__ = ["Account", "Attribution", "EngineUse", "RequestUse", "Share", "Window"]


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


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestUse:
    """A request that was at an engine in the window."""

    key: int
    engine: str
    millitokens: int
    """Its work in the window, in thousandths of an output token."""
    overlap_us: int
    """How long it was there."""


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
    requests: Sequence[RequestUse] = ()
    """Only of `engines`."""
    other_cpu_us: int | None = None
    """CPU time of everything that is no engine; None: the device is not shared by CPU time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """Joules for one account."""

    account: Account
    engine: str | None
    """None: no engine in particular."""
    request: int | None = None
    """The request's key; present just for `ACTIVE`."""
    energy: Microjoules


class Attribution(Protocol):
    """Shares a window's energy out."""

    @property
    def method(self) -> str:
        """Its name in `ATTRIBUTIONS`, and the label `method`."""

    @property
    def confidence(self) -> float:
        """How far a single request's joules can be trusted, 0 … 1."""

    def attribute(self, window: Window) -> list[Share]:
        """The shares; their sum is exactly `window.energy`, none is negative. Pure."""
