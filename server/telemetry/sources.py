"""What the exposition reads: values and functions, injected by the control plane."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from server.accounts import EnergyPrice
from server.fleet import Replica
from server.telemetry.traffic import Traffic
from server.units import Microjoules, Seconds

__all__ = ["AdapterLoad", "EnergyFigures", "Sample", "Sources"]

Sample = tuple[str, tuple[str, ...], float | None]
"""A metric's name, the values of its labels, its value; None: unknown, which is no sample."""


class EnergyFigures(Protocol):
    """The energy accounts at one moment; the sum of a device's accounts equals the device, in integers."""

    @property
    def devices(self) -> Mapping[tuple[str, str], Microjoules]:
        """By (device, scope), up to the last closed window."""

    @property
    def accounts(self) -> Mapping[tuple[str, ...], Microjoules]:
        """By (device, scope, engine, model, variant, precision, adapter, account, phase)."""

    @property
    def tenants(self) -> Mapping[tuple[str, ...], Microjoules]:
        """By (tenant, scope): the active account."""

    @property
    def tenants_idle(self) -> Mapping[tuple[str, ...], Microjoules]:
        """By (tenant, scope): what is laid on them of the idle account."""

    @property
    def saved(self) -> Mapping[tuple[str, str, str, str], Microjoules]:
        """By (engine, model, variant, precision): what cancelled requests did not use."""

    @property
    def prices(self) -> Mapping[tuple[str, str, str, str], EnergyPrice]:
        """By (engine, model, variant, precision)."""

    @property
    def residuals(self) -> Mapping[str, int]:
        """By device, µJ: by how much its last window was above what the method expected."""

    @property
    def silent(self) -> frozenset[str]:
        """Devices that could not be read the last time: nobody knows what they use now."""

    @property
    def meters(self) -> Mapping[str, tuple[bool, Seconds | None]]:
        """By meter: did the last reading succeed, and the age of the last good one (None: there was none)."""

    @property
    def method(self) -> str: ...

    @property
    def confidence(self) -> float: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterLoad:
    """An adapter that should be in a replica."""

    engine: str
    adapter: str
    loaded: bool
    load_s: Seconds | None
    """How long its last load took; None: it was never loaded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Called on the thread that renders: each function returns a value that nobody changes afterwards."""

    traffic: Traffic
    replicas: Callable[[], Sequence[Replica]]
    version: str
    energy: Callable[[], EnergyFigures] | None = None
    adapters: Callable[[], Sequence[AdapterLoad]] | None = None
    """None: what `Replica.adapters` lists is loaded, nothing else is expected."""
    samples: Sequence[Callable[[], Iterable[Sample]]] = ()
    """Whoever else has figures for metrics of the catalogue."""
