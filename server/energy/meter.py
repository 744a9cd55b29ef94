"""What a meter promises, and the values it returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from server.units import Joules, Seconds

__all__ = ["DeviceReading", "EnergyMeter", "Reading"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceReading:
    """One device's counter."""

    device: str
    """`cpu`, `gpu:0`, `node-b/gpu:0`, …: as in `Replica.device`; unique over all meters."""
    scope: str
    """What the joules cover: `gpu`, `package`, `estimated`, …"""
    joules: Joules
    """Total since some fixed moment; never falls."""
    baseline_joules: Joules | None = None
    """The part of `joules` that the idle device would have used as well; never falls. None: the meter cannot tell."""
    by_cpu_time: bool = False
    """A device that all processes of the host share by their CPU time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """The devices of a meter at one moment."""

    at: Seconds
    """CLOCK_MONOTONIC. Older than now, if the meter is asked less often than it is read."""
    devices: tuple[DeviceReading, ...]
    missing: Mapping[str, str] = field(default_factory=dict)
    """Devices that the meter knows and could not read, with the reason: their series stop, the others' go on."""


class EnergyMeter(Protocol):
    """Reads the energy that a set of devices has used."""

    @property
    def kind(self) -> str:
        """The label `meter`: its name in `METERS`, and of a kind that may be there twice, `:` and its own name."""

    def read(self) -> Reading:
        """Take a reading; joules never fall, even when the hardware counter wraps or restarts.

        Cheap (≤ 1 ms, and for each device ≤ 0.1 ms more), but for the first after `close` or a failure. Raises
        `MeterError`, and nothing else, if no device can be read: a meter never returns a guess without saying so in
        the scope. May be called again after a failure, and recovers when the device does. From one thread at a time.
        """

    def close(self) -> None:
        """Give back what `read` holds; reading again reopens it."""
