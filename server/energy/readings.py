"""Reads the meters; knows how they are, and cuts their devices' windows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from server.clock import Clock
from server.energy.devices import MIN_WINDOW, CpuTimes, Device
from server.energy.meter import EnergyMeter, Reading
from server.energy.processes import ProcessTable
from server.errors import MeterError
from server.fleet import Replica
from server.units import Seconds

__all__ = ["Readings"]


class Readings:
    """Never raises for a meter: it is shown as down."""

    def __init__(self, meters: Sequence[EnergyMeter], *, clock: Clock, processes: ProcessTable) -> None:
        self.devices: dict[str, Device] = {}
        self.min_window = MIN_WINDOW
        self._meters = list(meters)
        self._clock = clock
        self._processes = processes
        self._up: dict[str, bool] = {}
        self._read_at: dict[str, Seconds] = {}
        self._answering: dict[str, frozenset[str]] = {}
        """The devices in each meter's last reading."""

    def take(self, replicas: Sequence[Replica]) -> None:
        """Read every meter once."""
        for meter in self._meters:
            try:
                reading = meter.read()
                self._cut(reading, replicas)
            except MeterError:
                self._up[meter.kind], self._answering[meter.kind] = False, frozenset()
            else:
                self._up[meter.kind] = not reading.missing
                self._read_at[meter.kind] = reading.at
                self._answering[meter.kind] = frozenset(entry.device for entry in reading.devices)

    def health(self) -> Mapping[str, tuple[bool, Seconds | None]]:
        """By meter: could it read all its devices, and the age of its last reading (None: there was none)."""
        now = self._clock.monotonic()
        ages = {kind: Seconds(now - at) for kind, at in self._read_at.items()}
        return {kind: (up, ages.get(kind)) for kind, up in self._up.items()}

    def answering(self) -> frozenset[str]:
        """The devices that could be read the last time."""
        return frozenset[str]().union(*self._answering.values())

    def close(self) -> None:
        """Close the meters."""
        for meter in self._meters:
            meter.close()

    def _cut(self, reading: Reading, replicas: Sequence[Replica]) -> None:
        cpu: CpuTimes | None = None
        for entry in reading.devices:
            device = self.devices.get(entry.device)
            if device is not None and not device.is_due(reading.at, self.min_window):
                continue
            if entry.by_cpu_time and cpu is None:
                pids = [replica.pid for replica in replicas if replica.pid is not None]
                cpu = CpuTimes(busy_us=self._processes.busy_us(), trees_us=self._processes.trees_us(pids))
            if device is None:
                self.devices[entry.device] = Device(entry, reading.at, cpu, replicas)
            else:
                device.advance(entry, reading.at, cpu, replicas)
