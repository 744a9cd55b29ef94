"""Cuts a device's counter into windows, with what was seen of its engines."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from server.energy.counted import Counted, TokenCounts
from server.energy.foreign import ForeignTokens
from server.energy.mapping import devices_named
from server.energy.meter import DeviceReading
from server.errors import MeterError
from server.fleet import SERVING, EngineState, Replica
from server.units import MICROJOULES_PER_JOULE, Joules, Microjoules, Seconds

__all__ = ["MIN_WINDOW", "CpuTimes", "Device", "OpenWindow", "is_on", "is_up"]

MIN_WINDOW: Final = Seconds(0.95)
"""A second, less the jitter of the tick that reads: NVML's counter moves every 100 ms, so shorter windows are noise."""

_UP = SERVING | {EngineState.STARTING, EngineState.UNHEALTHY, EngineState.DRAINING}


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuTimes:
    """CPU time at one moment, µs."""

    busy_us: int
    trees_us: Mapping[int, int]
    """By the tree's root process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenWindow:
    """A window whose requests may still be running."""

    start: Seconds
    end: Seconds
    energy: Microjoules | None
    """None: the counter fell, so nobody knows."""
    baseline: Microjoules | None
    replicas: Sequence[Replica]
    """Those on the device, as they stood at the end."""
    cpu_us: Mapping[str, int]
    """By engine; empty unless the device is shared by CPU time."""
    other_cpu_us: int | None
    counted: Mapping[str, Counted]
    """By engine."""


class Device:
    """One device's last reading and its windows, oldest first."""

    def __init__(self, reading: DeviceReading, at: Seconds, cpu: CpuTimes | None, replicas: Sequence[Replica]) -> None:
        self.name = reading.device
        self.scope = reading.scope
        self.by_cpu_time = reading.by_cpu_time
        self.first_at = at
        self.closed_until = at
        self.windows: deque[OpenWindow] = deque()
        self.foreign: dict[str, ForeignTokens] = {}
        self._at = at
        self._total, self._baseline = _microjoules(reading.joules), _microjoules_or_none(reading.baseline_joules)
        self._cpu = cpu
        self._pids = {replica.name: replica.pid for replica in replicas}
        self._counts = TokenCounts(replicas)

    def is_due(self, at: Seconds, min_window: Seconds = MIN_WINDOW) -> bool:
        """Has a whole window passed since the last reading?"""
        return at - self._at >= min_window

    def advance(self, reading: DeviceReading, at: Seconds, cpu: CpuTimes | None, replicas: Sequence[Replica]) -> None:
        """End a window here. A counter that fell starts afresh: what it counted meanwhile is unknown."""
        total, baseline = _microjoules(reading.joules), _microjoules_or_none(reading.baseline_joules)
        cpu_us, other_cpu_us = self._cpu_times(cpu, replicas)
        self.windows.append(
            OpenWindow(
                start=self._at,
                end=at,
                energy=_growth(self._total, total) if total >= self._total else None,
                baseline=_growth(self._baseline, baseline),
                replicas=[replica for replica in replicas if is_on(replica, self)],
                cpu_us=cpu_us,
                other_cpu_us=other_cpu_us,
                counted=self._counts.advance(replicas),
            )
        )
        self._at, self._total, self._baseline, self._cpu = at, total, baseline, cpu
        self._pids = {replica.name: replica.pid for replica in replicas}

    def _cpu_times(self, cpu: CpuTimes | None, replicas: Sequence[Replica]) -> tuple[dict[str, int], int | None]:
        if cpu is None or self._cpu is None:
            return {}, None
        of_engines = {}
        for replica in replicas:
            if replica.pid is None:
                continue
            now = cpu.trees_us.get(replica.pid, 0)
            started = self._pids.get(replica.name) != replica.pid  # then all its time lies in this window
            before = 0 if started else self._cpu.trees_us.get(replica.pid, now)
            of_engines[replica.name] = max(0, now - before)
        return of_engines, max(0, cpu.busy_us - self._cpu.busy_us - sum(of_engines.values()))


def is_on(replica: Replica, device: Device) -> bool:
    """Does the replica use the device? On one that is shared by CPU time, every local process does."""
    if device.by_cpu_time:
        return replica.pid is not None
    return device.name in devices_named(replica.device)


def is_up(replica: Replica) -> bool:
    """Does the replica hold its device, whether or not it serves?"""
    return replica.state in _UP


def _microjoules(joules: Joules) -> Microjoules:
    if not math.isfinite(joules) or joules < 0:
        raise MeterError(f"A meter says {joules} J: that is no reading.")
    return Microjoules(round(joules * MICROJOULES_PER_JOULE))


def _microjoules_or_none(joules: Joules | None) -> Microjoules | None:
    return None if joules is None else _microjoules(joules)


def _growth(before: Microjoules | None, after: Microjoules | None) -> Microjoules | None:
    return None if before is None or after is None else Microjoules(max(0, after - before))
