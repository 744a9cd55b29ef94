"""What a master tells its workers, and when they begin."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from loadgen._gateway import Prepared
from loadgen._plan import Plan
from loadgen._run import Share

__all__ = ["DRAIN_S", "LOAD_DONE", "LOAD_FINAL", "LOAD_RECORDS", "LOAD_STOP", "SHARED", "Shared"]

DRAIN_S: Final = 10.0
"""Time for requests in flight at the end, where --stop-timeout says nothing."""

SHARED: Final = "load_shared"
"""The option in which the master hands its word to the workers."""

LOAD_RECORDS: Final = "load_records"
"""Key of the records in a worker's reports."""
LOAD_STOP: Final = "load_stop"
"""To the workers: send nothing more, drain, report."""
LOAD_FINAL: Final = "load_final"
"""To the master: the last records and the counts."""
LOAD_DONE: Final = "load_done"
"""To the master: this worker has sent its part, and all is answered."""

_LEAD_S: Final = 1.0
"""Until the first arrival: by then every worker on this machine has the message and has made its schedule."""
_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """One test, as every worker begins it."""

    plan: Plan
    prepared: Prepared
    workers: int
    origin: float
    """CLOCK_MONOTONIC of the master's machine at the run's start."""
    boot: str | None
    """Names that machine, and its clock, since it was last started; None: unknown."""

    @classmethod
    def now(cls, plan: Plan, prepared: Prepared, workers: int) -> Self:
        # In closed loop there is nothing to be late for.
        origin = time.monotonic() + (_LEAD_S if plan.open_loop else 0.0)
        return cls(plan=plan, prepared=prepared, workers=workers, origin=origin, boot=_boot())

    def to_json(self) -> dict[str, Any]:
        return {
            "plan": {**self.plan.to_json(), **self.plan.secrets()},
            "prepared": self.prepared.to_json(),
            "workers": self.workers,
            "origin": self.origin,
            "boot": self.boot,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        return cls(**{**data, "plan": Plan(**data["plan"]), "prepared": Prepared.from_json(data["prepared"])})

    def share(self, worker_index: int) -> Share:
        return Share(index=worker_index % self.workers, of=self.workers)

    def origin_here(self) -> float | None:
        """On the master's own machine the same instant for all; None elsewhere, where clocks cannot be compared."""
        return self.origin if self.boot is not None and self.boot == _boot() else None


def _boot() -> str | None:
    try:
        return _BOOT.read_text("ascii").strip()
    except OSError:
        return None
