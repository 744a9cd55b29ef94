"""What a method of attribution promises, and the values between it and the accountant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from server.accounts import Account
from server.units import Microjoules, Seconds

__all__ = ["Account", "Attribution", "EngineUse", "RequestUses", "Share", "Shares", "TokenEvents", "Window"]

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


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
    counted_prompt_tokens: int | None = None
    """By its own count in the window, without those from the prefix cache; None: it does not say."""
    counted_output_tokens: int | None = None
    """Likewise."""


def _none() -> Integers:
    return np.zeros(0, np.int64)


def _no_times() -> Floats:
    return np.zeros(0, np.float64)


def _no_flags() -> Flags:
    return np.zeros(0, np.bool_)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RequestUses:
    """The requests that were at an engine in the window: arrays with one entry for each, as there may be thousands."""

    engine: Integers = field(default_factory=_none)
    """Its place in `Window.engines`."""
    millitokens: Integers = field(default_factory=_none)
    """Its work in the window, in thousandths of an output token."""
    overlap_us: Integers = field(default_factory=_none)
    """How long it was there."""
    prompt_millitokens: Integers = field(default_factory=_none)
    """The part of `millitokens` that is its prompt."""
    adapter: Flags = field(default_factory=_no_flags)
    """It uses an adapter."""
    prompt_tokens: Integers = field(default_factory=_none)
    """Its whole prompt; -1: not known (yet)."""
    computed_prompt_tokens: Integers = field(default_factory=_none)
    """Those that the prefix cache did not hold; -1: not known (yet)."""
    output_tokens: Integers = field(default_factory=_none)
    """Of its whole life; -1: not known (yet)."""
    tokens_before: Floats = field(default_factory=_no_times)
    """Output tokens that had come before the window began."""
    sent_at: Floats = field(default_factory=_no_times)
    first_token_at: Floats = field(default_factory=_no_times)
    """NaN: none has come, or its tokens do not come one by one."""
    done_at: Floats = field(default_factory=_no_times)
    """NaN: it still runs."""
    streamed: Flags = field(default_factory=_no_flags)
    """Its tokens are seen as they come; else they are spread evenly over its time."""

    def __len__(self) -> int:
        return len(self.engine)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TokenEvents:
    """The token chunks of streams that arrived in a window, in the order of their times."""

    times: Floats = field(default_factory=_no_times)
    """CLOCK_MONOTONIC seconds, ascending, start ≤ t < end."""
    request: Integers = field(default_factory=_none)
    """Whose: the place in `Window.requests`."""
    tokens: Floats = field(default_factory=_no_times)
    """How many it held: 1.0 where the engine sends one a chunk, else the request's mean."""

    def __len__(self) -> int:
        return len(self.times)


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
    tokens: TokenEvents = field(default_factory=TokenEvents)
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

    prefill: Integers
    """µJ of each of `Window.requests`, for its prompt."""
    decode: Integers
    """µJ of each, for its output."""
    others: Sequence[Share]
    method: str
    """That was used for this window: a method may fall back to a simpler one."""
    confidence: float
    """How far a single request's joules can be trusted, 0 … 1."""
    residual: int = 0
    """µJ by which the meter was above (or below) what the method's model expected; scaling has put it right."""

    @property
    def requests(self) -> Integers:
        """µJ of each of `Window.requests`."""
        return self.prefill + self.decode

    @property
    def total(self) -> int:
        return int(self.prefill.sum()) + int(self.decode.sum()) + sum(share.energy for share in self.others)


class Attribution(Protocol):
    """Shares windows' energy out; may learn from each window for those that follow."""

    @property
    def method(self) -> str:
        """Its name in `ATTRIBUTIONS`, and the label `method`; of one that falls back, the method now in use."""

    @property
    def confidence(self) -> float:
        """Of the method now in use, 0 … 1."""

    def learn(self, window: Window) -> None:
        """Learn from a window as `attribute` does, without sharing anything out.

        Whoever has all windows at hand lets the method learn from them first, and attributes them after.
        """

    def attribute(self, window: Window) -> Shares:
        """The shares; their sum is exactly `window.energy`, none is negative.

        The windows of a device come in the order of time; those of several devices may alternate.
        """
