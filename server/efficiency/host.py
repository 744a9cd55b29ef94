"""What engines on the CPU use: CPU time over their cores, memory over its limit."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from server.efficiency.use import Use
from server.energy.processes import ProcessTable
from server.fleet import Replica
from server.units import Bytes, Seconds

__all__ = ["HostUse", "memory_limit"]

_EVERY: Final = Seconds(5.0)
"""Between two readings of CPU time: its grain is 10 ms, and finding the processes of a tree takes milliseconds."""
_LIMIT_EVERY: Final = Seconds(60.0)
"""Between two looks at a limit, which hardly ever moves."""
_V1: Final = "memory"
_BYTES_PER_KIB: Final = 1024
_JITTER: Final = 0.9


class _Read(NamedTuple):
    at: Seconds
    pid: int
    cpu_us: int


class HostUse:
    """Local engines whose device is the CPU. An engine that is bound to no cores has all of the machine's."""

    def __init__(
        self,
        *,
        proc: Path = Path("/proc"),
        cgroups: Path = Path("/sys/fs/cgroup"),
        cpu_us: Callable[[Iterable[int]], Mapping[int, int]] | None = None,
        cores: int | None = None,
    ) -> None:
        self._proc = proc
        self._cgroups = cgroups
        self._cpu_us = cpu_us or ProcessTable(proc).trees_us
        self._cores = cores or len(os.sched_getaffinity(0))
        self._read_at: Seconds | None = None
        self._reads: dict[str, _Read] = {}
        self._limits: dict[int, tuple[Seconds, Bytes | None]] = {}

    def look(self, replicas: Sequence[Replica], at: Seconds) -> Mapping[str, Use]:
        busy = self._busy(replicas, at)
        self._limits = {r.pid: self._limits[r.pid] for r in replicas if r.pid is not None and r.pid in self._limits}
        return {
            replica.name: Use(
                memory_held_bytes=replica.memory_bytes,
                memory_allowed_bytes=self._allowed(replica.pid, at) if replica.pid is not None else None,
                compute_s=busy[replica.name][0] if replica.name in busy else None,
                compute_busy_s=busy[replica.name][1] if replica.name in busy else None,
            )
            for replica in replicas
        }

    def close(self) -> None:
        """Nothing is held."""

    def _busy(self, replicas: Sequence[Replica], at: Seconds) -> dict[str, tuple[float, float]]:
        """Core-seconds had and used since the reading before, of processes that were there then."""
        if self._read_at is not None and at - self._read_at < _EVERY * _JITTER:
            return {}
        self._read_at = at
        times = self._cpu_us([replica.pid for replica in replicas if replica.pid is not None])
        before, self._reads = self._reads, {}
        found = {}
        for replica in replicas:
            if replica.pid is None or replica.pid not in times:
                continue
            now = self._reads[replica.name] = _Read(at, replica.pid, times[replica.pid])
            last = before.get(replica.name)
            # A tree's time falls when a process leaves it: then nobody knows how much it has used.
            if last is not None and last.pid == now.pid and now.cpu_us >= last.cpu_us:
                seconds = now.at - last.at
                found[replica.name] = (
                    seconds * (len(replica.cores) or self._cores),
                    (now.cpu_us - last.cpu_us) / 1e6,
                )
        return found

    def _allowed(self, pid: int, at: Seconds) -> Bytes | None:
        known = self._limits.get(pid)
        if known is None or at - known[0] >= _LIMIT_EVERY:
            known = self._limits[pid] = (at, memory_limit(pid, proc=self._proc, cgroups=self._cgroups))
        return known[1]


def memory_limit(pid: int, *, proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> Bytes | None:
    """The least of what its cgroups, of either version, and the machine have; None: nothing of that can be read.

    Sources: cgroup-v2.rst (memory.max of a cgroup and of all above it hold), cgroup-v1/memory.rst, proc(5).
    """
    limits = [limit for limit in (_machine(proc), *_of_cgroups(pid, proc, cgroups)) if limit is not None]
    return Bytes(min(limits)) if limits else None


def _of_cgroups(pid: int, proc: Path, cgroups: Path) -> list[int | None]:
    """What is not mounted where it is looked for (a container sees its own cgroup as the root) is passed over."""
    limits: list[int | None] = []
    for line in _text(proc / str(pid) / "cgroup").splitlines():
        number, controllers, path = (*line.split(":", 2), "", "")[:3]
        if number == "0" and not controllers:
            root, name = cgroups, "memory.max"
        elif _V1 in controllers.split(","):
            root, name = cgroups / _V1, "memory.limit_in_bytes"
        else:
            continue
        parts = [part for part in path.split("/") if part]
        if ".." in parts:  # it lies outside of what this process can see
            continue
        limits += [_number(root.joinpath(*parts[:depth], name)) for depth in range(len(parts) + 1)]
    return limits


def _machine(proc: Path) -> int | None:
    for line in _text(proc / "meminfo").splitlines():
        if line.startswith("MemTotal:"):
            words = line.split()
            return int(words[1]) * _BYTES_PER_KIB if len(words) > 1 and words[1].isdecimal() else None
    return None


def _number(path: Path) -> int | None:
    """None: no such file, or `max`."""
    text = _text(path).strip()
    return int(text) if text.isdecimal() else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
