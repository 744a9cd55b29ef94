"""CPU time of process trees and of the whole host, from /proc."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from server.errors import MeterError

__all__ = ["ProcessTable"]

_MICROSECONDS = 1_000_000
_RESCAN_EVERY = 5
"""Readings between two looks at all processes of the host; in between, only those known are read."""


@dataclass(frozen=True, slots=True)
class _Process:
    pid: int
    parent: int
    started: int
    """Clock ticks after boot: tells a reused pid from the process that had it."""
    ticks: int
    """User and system time, its own and that of the children it has waited for."""


class ProcessTable:
    """Reads `/proc`; all results are in µs of CPU time, with a grain of one clock tick (10 ms as a rule)."""

    def __init__(self, root: Path = Path("/proc"), ticks_per_second: int | None = None) -> None:
        self._root = root
        self._hz = ticks_per_second or os.sysconf("SC_CLK_TCK")
        self._trees: dict[int, dict[int, int]] = {}
        self._reads = 0

    def busy_us(self) -> int:
        """CPU time that the host has used since its boot, over all cores. Raises `MeterError`."""
        try:
            with (self._root / "stat").open(encoding="ascii") as file:
                fields = file.readline().split()
            # cpu user nice system idle iowait irq softirq steal guest guest_nice; guests are in user and nice already,
            # steal was used by others. Source: proc(5).
            user, nice, system, _idle, _iowait, irq, softirq = map(int, fields[1:8])
        except (OSError, ValueError) as exc:
            raise MeterError(
                f"{self._root / 'stat'} cannot be read ({exc}): there is no CPU time to estimate from."
            ) from exc
        return self._us(user + nice + system + irq + softirq)

    def trees_us(self, roots: Iterable[int]) -> dict[int, int]:
        """CPU time of each root with all its descendants, those that ended included; a root that is gone is absent.

        It can fall, when a descendant leaves the tree (its parent ended before it).
        """
        wanted = set(roots)
        sums = self._known(wanted) if self._reads % _RESCAN_EVERY else None
        self._reads += 1
        return self._scan(wanted) if sums is None else sums

    def _known(self, roots: set[int]) -> dict[int, int] | None:
        """From the processes of the last scan; None if any of them has changed."""
        if roots != self._trees.keys():
            return None
        sums = {}
        for root, members in self._trees.items():
            ticks = 0
            for pid, started in members.items():
                process = self._read(pid)
                if process is None or process.started != started:
                    return None
                ticks += process.ticks
            sums[root] = self._us(ticks)
        return sums

    def _scan(self, roots: set[int]) -> dict[int, int]:
        if not roots:
            self._trees = {}
            return {}
        processes = {}
        for entry in os.listdir(self._root):  # noqa: PTH208  # three times as fast as iterdir
            process = self._read(int(entry)) if entry.isdecimal() else None
            if process is not None:
                processes[process.pid] = process
        children = defaultdict(list)
        for process in processes.values():
            children[process.parent].append(process)
        self._trees, sums = {}, {}
        for root in roots & processes.keys():
            members = [processes[root]]
            for member in members:  # grows while it is walked: breadth first
                members += children[member.pid]
            self._trees[root] = {member.pid: member.started for member in members}
            sums[root] = self._us(sum(member.ticks for member in members))
        return sums

    def _read(self, pid: int) -> _Process | None:
        """None: there is no such process (any more)."""
        try:
            with open(f"{self._root}/{pid}/stat", "rb", buffering=0) as file:  # noqa: PTH123  # half the time of a Path
                text = file.read()
            # The name, in parentheses, may hold anything; the third field comes after the last one. Source: proc(5).
            fields = text[text.rindex(b")") + 2 :].split()
            user, system, waited_user, waited_system = map(int, fields[11:15])
            parent, started = int(fields[1]), int(fields[19])
        except (OSError, ValueError, IndexError):
            return None
        return _Process(pid, parent, started, user + system + waited_user + waited_system)

    def _us(self, ticks: int) -> int:
        return ticks * _MICROSECONDS // self._hz
