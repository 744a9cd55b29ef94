"""Every process below the launcher, whoever started it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

__all__ = ["adopt_orphans", "die_with_parent", "end_all", "reap"]

_PR_SET_PDEATHSIG: Final = 1  # <linux/prctl.h>
_PR_SET_CHILD_SUBREAPER: Final = 36
_KEEPER_STOP_S: Final = 15.0
_TICK_S: Final = 0.05


def adopt_orphans() -> None:
    """From now on every descendant whose parent ends becomes a child of this process."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(parent: int) -> None:
    """Between fork and exec: be killed when `parent` ends."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the line above
        os._exit(1)


def reap() -> Iterator[tuple[int, int]]:
    """Bury every child that has ended; yields its pid and exit status (negative: a signal's number)."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        yield pid, os.waitstatus_to_exitcode(status)


def end_all() -> None:
    """End whoever is left: keepers by SIGTERM, so that they end their engines; after a while all by SIGKILL."""
    deadline = time.monotonic() + _KEEPER_STOP_S
    asked: set[int] = set()
    while pids := _descendants():
        late = time.monotonic() >= deadline
        for pid in pids if late else set(_children(os.getpid())) - asked:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL if late else signal.SIGTERM)
            asked.add(pid)
        time.sleep(_TICK_S)
        list(reap())


def _descendants() -> list[int]:
    found: list[int] = []
    waiting = _children(os.getpid())
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        waiting += _children(pid)
    return found


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()]
    except OSError:  # it has ended
        return []


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl failed")
