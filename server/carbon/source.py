"""What a source of carbon intensity promises."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import httpx

from server.config.carbon import CarbonSourceSettings, Signal
from server.units import Seconds

__all__ = ["FixedSource", "LiveSource", "MakeSource", "Reading", "Source"]


class Reading(NamedTuple):
    """What a live source says now."""

    grams_per_kwh: float
    """gCO₂e; may be anything that a float can be."""
    stated_at: Seconds | None
    """The time that it is of, in seconds since the Unix epoch; None: the source does not say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedSource:
    """A figure that does not change while the process runs."""

    name: str
    """The label `source`: few values, and no secret."""
    signal: Signal
    grams_per_kwh: float


class LiveSource(Protocol):
    """Is asked again and again."""

    @property
    def name(self) -> str:
        """The label `source`: few values, and no secret."""

    @property
    def signal(self) -> Signal: ...

    async def read(self, http: httpx.AsyncClient) -> Reading:
        """Ask once. Who calls bounds the time, and judges the number.

        May be cancelled. Raises `CarbonSourceError`, and nothing else.
        """


Source = FixedSource | LiveSource

MakeSource = Callable[[CarbonSourceSettings, Mapping[str, str] | None], Source]
"""From its settings and the environment; raises `ConfigError`."""
