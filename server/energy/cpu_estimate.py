"""Machines without a counter: idle watts, and watts for each busy core.

Joules = idle_watts · time + watts_per_core · CPU time of the host, counted from the first reading. Both constants come
from the configuration; the scope says `estimated` wherever these joules appear.
"""

from __future__ import annotations

from typing import Final

from server.clock import Clock
from server.config import MeterSettings
from server.energy.meter import DeviceReading, Reading
from server.energy.processes import ProcessTable
from server.units import Joules, Seconds

__all__ = ["CpuEstimateMeter"]

_SECONDS_PER_MICROSECOND = 1e-6


class CpuEstimateMeter:
    """One device, `cpu`: the whole host."""

    kind: Final = "cpu_estimate"

    def __init__(self, settings: MeterSettings, *, clock: Clock, processes: ProcessTable) -> None:
        self._settings = settings
        self._clock = clock
        self._processes = processes
        self._first: tuple[Seconds, int] | None = None
        self._busy_us = 0

    def read(self) -> Reading:
        busy_us, at = self._processes.busy_us(), self._clock.monotonic()
        if self._first is None:
            self._first = (at, busy_us)
        since, busy_then_us = self._first
        self._busy_us = max(self._busy_us, busy_us - busy_then_us)  # some hypervisors set these counters back
        idle = self._settings.idle_watts * (at - since)
        dynamic = self._settings.watts_per_core * self._busy_us * _SECONDS_PER_MICROSECOND
        return Reading(
            at=at,
            devices=(
                DeviceReading(
                    device="cpu",
                    scope="estimated",
                    joules=Joules(idle + dynamic),
                    baseline_joules=Joules(idle),
                    by_cpu_time=True,
                ),
            ),
        )

    def close(self) -> None:
        """Nothing is held."""
