"""EfficientLLM's training metrics.

AMU (1/T)∫ used/total memory dt; PCU the mean share of the compute that is busy (on a CPU: CPU time over the cores that
the process may use); AL mean seconds a step; ST samples a second and parameter; AEC mean **watts**. Joules stand beside
it, because watts are no cost. Source: EfficientLLM, arXiv 2505.13840. Unknown is absent.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import psutil

__all__ = ["Gauges", "Machine", "OnCpu", "OnGpu", "memory_limit_bytes"]

_CGROUP_LIMITS: Final = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
_PERCENT: Final = 0.01


class Machine(Protocol):
    """Reads the device that trains; cheap enough for every step."""

    def memory_share(self) -> float:
        """Memory in use over what may be used, 0 … 1."""

    def busy(self) -> float | None:
        """The share of the compute that was busy since the last call, 0 … 1; None: unknown."""


@dataclass(slots=True)
class OnCpu:
    """This process on the cores it is bound to, in its cgroup's memory."""

    clock: Callable[[], float]
    _process: psutil.Process
    _total: int
    _cores: int
    _cpu_s: float
    _at: float

    @classmethod
    def now(cls, clock: Callable[[], float]) -> OnCpu:
        process = psutil.Process()
        cores = len(os.sched_getaffinity(0))
        return cls(clock, process, memory_limit_bytes(), cores, _cpu_seconds(process), clock())

    def memory_share(self) -> float:
        return self._process.memory_info().rss / self._total

    def busy(self) -> float | None:
        cpu_s, at = _cpu_seconds(self._process), self.clock()
        spent, passed = cpu_s - self._cpu_s, at - self._at
        self._cpu_s, self._at = cpu_s, at
        return spent / (passed * self._cores) if passed > 0 else None


@dataclass(frozen=True, slots=True)
class OnGpu:
    """One NVIDIA GPU; its busy share is NVML's `utilization.gpu`, which says that a kernel was resident, no more."""

    device: str
    """`cuda`, `cuda:1`, …"""
    cuda: Any
    """`torch.cuda`."""

    def memory_share(self) -> float:
        free, total = self.cuda.mem_get_info(self.device)
        return float(1 - free / total)

    def busy(self) -> float | None:
        try:
            return float(self.cuda.utilization(self.device) * _PERCENT)
        except (ImportError, RuntimeError):  # no NVML
            return None


class Gauges:
    """Takes a reading at the end of every step; the first step's start is when this is made."""

    def __init__(self, machine: Machine, *, clock: Callable[[], float], joules: Callable[[], float | None]) -> None:
        self._machine = machine
        self._clock = clock
        self._joules = joules
        self._memory: list[tuple[float, float]] = []  # (share, seconds)
        self._busy: list[tuple[float, float]] = []
        self._samples = 0
        self._tokens = 0
        machine.busy()  # from here on
        self._joules_before = joules()
        self._began = self._last = clock()

    def step(self, *, samples: int, tokens: int) -> None:
        """A step of that many examples, and tokens that were learned, is over."""
        now = self._clock()
        passed = now - self._last
        self._last = now
        self._samples += samples
        self._tokens += tokens
        self._memory.append((self._machine.memory_share(), passed))
        busy = self._machine.busy()
        if busy is not None:
            self._busy.append((busy, passed))

    def report(self, parameters: int) -> dict[str, Any]:
        """The metrics of all steps so far, for a model that trains `parameters`; what is unknown is absent."""
        seconds = self._last - self._began
        if seconds <= 0:
            return {}
        joules = _difference(self._joules(), self._joules_before)
        found = {
            "amu_ratio": _mean(self._memory),
            "pcu_ratio": _mean(self._busy),
            "al_seconds_per_step": seconds / len(self._memory),
            "st_samples_per_second": self._samples / seconds,
            "st_samples_per_second_per_million_parameters": self._samples / seconds / (parameters / 1e6),
            "tt_tokens_per_second": self._tokens / seconds,
            "aec_watts": None if joules is None else joules / seconds,
            "joules": joules,
            "joules_per_sample": None if joules is None else joules / self._samples,
        }
        return {name: float(f"{value:.5g}") for name, value in found.items() if value is not None}


def memory_limit_bytes() -> int:
    """What this process may use: its cgroup's limit, or the machine's memory."""
    total = psutil.virtual_memory().total
    for path in _CGROUP_LIMITS:
        try:
            return min(int(path.read_text(encoding="ascii")), total)
        except (OSError, ValueError):  # not there, or "max"
            continue
    return total


def _cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def _mean(readings: list[tuple[float, float]]) -> float | None:
    """Weighted by the seconds that a reading stands for."""
    seconds = math.fsum(passed for _, passed in readings)
    return math.fsum(value * passed for value, passed in readings) / seconds if seconds > 0 else None


def _difference(after: float | None, before: float | None) -> float | None:
    return None if after is None or before is None else after - before
