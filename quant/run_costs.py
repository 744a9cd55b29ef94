"""What it takes to make something: seconds, memory, joules."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from quant.run_energy import EnergyCounter

__all__ = ["Costs", "counting_costs"]

_MEMORY_EVERY_S: Final = 0.02
_ENERGY_EVERY_S: Final = 30.0  # a counter that wraps does so after minutes
_STATUS: Final = Path("/proc/self/status")
_BYTES_PER_KIB: Final = 1024


@dataclass(slots=True)
class Costs:
    """Filled in when the counting ends; None: unknown."""

    seconds: float = 0.0
    peak_memory_bytes: int | None = None  # anonymous memory; mapped files are the page cache's
    joules: float | None = None
    energy_meter: str | None = None


@contextlib.contextmanager
def counting_costs(counter: EnergyCounter | None) -> Iterator[Costs]:
    """Count while the block runs; a counter that fails leaves `joules` None."""
    costs = Costs(energy_meter=counter.kind if counter else None)
    ended = threading.Event()
    watch = threading.Thread(target=_watch, args=(costs, counter, ended), name="costs", daemon=True)
    before = counter.joules() if counter else None
    began = time.monotonic()
    watch.start()
    try:
        yield costs
    finally:
        costs.seconds = time.monotonic() - began
        ended.set()
        watch.join()
        after = counter.joules() if counter else None
        # A counter that has not moved is too coarse for so short a time: unknown, not 0.
        if before is not None and after is not None and after > before:
            costs.joules = after - before


def _watch(costs: Costs, counter: EnergyCounter | None, ended: threading.Event) -> None:
    next_energy = time.monotonic() + _ENERGY_EVERY_S
    while True:
        memory = _anonymous_memory()
        if memory is not None:
            costs.peak_memory_bytes = max(costs.peak_memory_bytes or 0, memory)
        if ended.wait(_MEMORY_EVERY_S):
            return
        if counter is not None and time.monotonic() > next_energy:
            counter.joules()
            next_energy += _ENERGY_EVERY_S


def _anonymous_memory() -> int | None:
    """Source: proc(5), /proc/pid/status, RssAnon in kB. None where the kernel does not tell."""
    try:
        for line in _STATUS.read_text(encoding="ascii").splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * _BYTES_PER_KIB
    except (OSError, ValueError, IndexError):
        return None
    return None
