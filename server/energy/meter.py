"""What a meter promises, and the values it returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from server.units import Joules, Seconds

__all__ = ["DeviceReading", "EnergyMeter", "Reading"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceReading:
    """One device's counter."""

    device: str
    """`cpu`, `gpu:0`, …: as in `Replica.device`; unique over all meters."""
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
    """All devices of a meter at one moment."""

    at: Seconds
    """CLOCK_MONOTONIC."""
    devices: tuple[DeviceReading, ...]


class EnergyMeter(Protocol):
    """Reads the energy that a set of devices has used."""

    @property
    def kind(self) -> str:
        """Its name in `METERS`, and the label `meter`."""

    def read(self) -> Reading:
        """Take a reading; joules never fall, even when the hardware counter wraps or restarts.

        Cheap (≤ 1 ms a device). Raises `MeterError` if a device cannot be read: a meter never returns a guess without
        saying so in the scope. May be called again after a failure, and recovers when the device does.
        """

    def close(self) -> None:
        """Give back what `read` holds; reading again reopens it."""
