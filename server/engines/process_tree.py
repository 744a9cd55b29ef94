"""What the kernel knows of an engine's processes: memory and cores."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Final

from server.engines.keeper import descendants
from server.units import Bytes

__all__ = ["narrow", "proportional_set_size", "tree"]

_BYTES_PER_KB: Final = 1024
"""The kernel's kB; source: proc_pid_smaps(5)."""


def tree(root: int) -> list[int]:
    """`root` and all below it."""
    return [root, *descendants(root)]


def proportional_set_size(pids: Iterable[int]) -> Bytes | None:
    """Memory of all `pids`, each shared page counted once in all; None if none of them can be read."""
    sizes = [size for pid in pids if (size := _pss(pid)) is not None]
    return Bytes(sum(sizes)) if sizes else None


def _pss(pid: int) -> int | None:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    line = next((line for line in text.splitlines() if line.startswith("Pss:")), None)
    return None if line is None else int(line.split()[1]) * _BYTES_PER_KB


def narrow(pids: Iterable[int], cores: Collection[int]) -> None:
    """Bind every thread of `pids` to `cores`; threads that end meanwhile, or bind themselves closer, are left alone."""
    for pid in pids:
        with contextlib.suppress(OSError):
            for thread in Path(f"/proc/{pid}/task").iterdir():
                _narrow_thread(int(thread.name), cores)


def _narrow_thread(thread: int, cores: Collection[int]) -> None:
    with contextlib.suppress(OSError):
        if not os.sched_getaffinity(thread) <= set(cores):
            os.sched_setaffinity(thread, cores)
