"""Meters over time: watts, and joules since the first look."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from server.energy.meter import DeviceReading, EnergyMeter
from server.errors import MeterError
from server.units import Joules, Seconds, Watts

__all__ = ["MeterWatch", "WatchedDevice"]


@dataclass(slots=True)
class WatchedDevice:
    """One device, as it was last read."""

    reading: DeviceReading
    at: Seconds
    since_start: Joules
    watts: Watts | None = None
    """None: not known yet, or not any more."""
    read_now: bool = True
    """At the last look."""


class MeterWatch:
    """The devices of some meters since the first look."""

    def __init__(self, meters: Sequence[EnergyMeter]) -> None:
        self._meters = meters
        self.rows: dict[str, WatchedDevice] = {}
        self.problems: list[str] = []

    def look(self) -> None:
        """Read all meters; what cannot be read has no watts, and a line of its own."""
        self.problems = []
        seen: set[str] = set()
        for meter in self._meters:
            try:
                reading = meter.read()
            except MeterError as exc:
                self.problems.append(f"{meter.kind}: {exc}")
                continue
            self.problems += [f"{device}: {reason}" for device, reason in reading.missing.items()]
            for device in reading.devices:
                seen.add(device.device)
                self._note(device, reading.at)
        for name, row in self.rows.items():
            row.read_now = name in seen
            row.watts = row.watts if row.read_now else None

    def lines(self) -> Iterator[dict[str, Any]]:
        """A line a device, in the form of a recording (recorded.py), and what else is known."""
        for name, row in self.rows.items():
            if row.read_now:
                yield {
                    "t_s": row.at,
                    "device": name,
                    "scope": row.reading.scope,
                    "joules_total": row.reading.joules,
                    "baseline_joules": row.reading.baseline_joules,
                    "by_cpu_time": row.reading.by_cpu_time,
                    "watts": row.watts,
                    "joules_since_start": row.since_start,
                }

    def _note(self, device: DeviceReading, at: Seconds) -> None:
        row = self.rows.get(device.device)
        if row is None:
            self.rows[device.device] = WatchedDevice(device, at, Joules(0.0))
        elif at > row.at:
            used = device.joules - row.reading.joules
            row.watts = Watts(used / (at - row.at))
            row.reading, row.at, row.since_start = device, at, Joules(row.since_start + used)
