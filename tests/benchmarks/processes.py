"""Process trees: started on a core, their CPU and memory read, ended."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

import psutil

__all__ = ["cpu_ns", "end", "on_core", "pss_bytes", "rss_bytes", "start", "tree"]

_STOP_S = 20.0


def start(argv: Sequence[str], *, core: int | None, log: Path, cwd: Path | None = None, **env: str) -> psutil.Popen:
    """Start a program in a session of its own, bound to a core from its first instruction on (None: to nothing)."""
    bound = [] if core is None else ["taskset", "--cpu-list", str(core)]
    with log.open("ab") as output:
        return psutil.Popen(
            [*bound, *argv],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd=cwd,
            env={**os.environ, **env},  # noqa: TID251  # a program is started as a shell would
        )


def end(process: psutil.Popen) -> None:
    """End a program and all it started: asked first, made to after a while."""
    family = [*process.children(recursive=True), process] if process.is_running() else []
    for member in family:
        _send(member, signal.SIGTERM)
    _, alive = psutil.wait_procs(family, timeout=_STOP_S)
    for member in alive:
        _send(member, signal.SIGKILL)
    psutil.wait_procs(alive, timeout=_STOP_S)


def _send(process: psutil.Process, number: int) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return


def tree(process: psutil.Process) -> list[psutil.Process]:
    """The process and its descendants."""
    return [process, *process.children(recursive=True)]


def cpu_ns(pids: Iterable[int]) -> int:
    """CPU time of all threads of these processes, ns; a process that is gone counts nothing."""
    return sum(_cpu_ns(pid) for pid in pids)


def _cpu_ns(pid: int) -> int:
    total = 0
    try:
        for thread in os.scandir(f"/proc/{pid}/task"):
            total += int(Path(thread.path, "schedstat").read_bytes().split()[0])
    except (FileNotFoundError, ProcessLookupError):
        return total
    return total


def rss_bytes(pids: Iterable[int]) -> int:
    """Resident memory, what processes share counted once a process, bytes."""
    return sum(psutil.Process(pid).memory_info().rss for pid in pids)


def pss_bytes(pids: Iterable[int]) -> int:
    """Proportional set size, bytes: what processes share is divided among them."""
    return sum(psutil.Process(pid).memory_full_info().pss for pid in pids)


def on_core(process: psutil.Process, core: int) -> bool:
    """Whether every process of the tree is bound to this core alone."""
    return all(os.sched_getaffinity(member.pid) == {core} for member in tree(process))
