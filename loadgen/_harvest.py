"""What a run brought in, from one process or from many, and its summary."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from loadgen._energy import EnergyReport
from loadgen._gateway import Prepared
from loadgen._plan import Plan
from loadgen._record import Record
from loadgen._run import Run
from loadgen._summary import ModelFigures, Window, figures_of, lateness_of

__all__ = ["Harvest", "Outcome", "run_counts", "summary_of"]

_DISTRIBUTIONS: Final = ("wattgate", "locust", "gevent", "geventhttpclient", "numpy")
_GIT_TIMEOUT_S: Final = 5.0


@dataclass(slots=True, kw_only=True)
class Harvest:
    """Mergeable: each process adds its part."""

    records: list[Record] = field(default_factory=list)
    dropped: int = 0
    unfinished: int = 0
    steady_until_s: float | None = None
    """The earliest moment at which a process sent nothing more."""
    schedule_hash: str | None = None
    processes: int = 0

    def add_run(self, run: Run) -> None:
        """A process's part, once it has ended."""
        self.records.extend(run.records)
        self.add_counts(run_counts(run))

    def add_counts(self, counts: Mapping[str, Any]) -> None:
        self.dropped += counts["dropped"]
        self.unfinished += counts["unfinished"]
        until = counts["steady_until_s"]
        if until is not None:
            self.steady_until_s = until if self.steady_until_s is None else min(self.steady_until_s, until)
        self.schedule_hash = counts["schedule_hash"] or self.schedule_hash
        self.processes += 1

    def window(self, plan: Plan) -> Window:
        return Window(start_s=plan.warm_up_s, end_s=self.steady_until_s or 0.0)


def run_counts(run: Run) -> dict[str, Any]:
    """What a worker tells the master beside its records."""
    return {
        "dropped": run.dropped,
        "unfinished": run.unfinished,
        "steady_until_s": run.steady_until_s,
        "schedule_hash": run.schedule_hash,
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A finished run, ready to be shown and written."""

    figures: list[ModelFigures]
    energy: EnergyReport | None
    notes: list[str]
    """What a reader must know before believing the figures."""
    summary: dict[str, Any]


def summary_of(
    plan: Plan, prepared: Prepared, harvest: Harvest, *, energy: EnergyReport | None, notes: list[str], started: str
) -> Outcome:
    """`started` is the wall clock's ISO 8601 time at the run's start."""
    window = harvest.window(plan)
    figures = figures_of(harvest.records, window)
    summary = {
        "started": started,
        "window": {"start_s": window.start_s, "end_s": window.end_s, "length_s": window.length_s},
        "notes": notes,
        "arguments": plan.to_json(),
        "schedule_hash": harvest.schedule_hash,
        "versions": _versions(),
        "commit": _commit(),
        "machine": platform.platform(),
        "processes": harvest.processes,
        "serving": prepared.to_json()["cards"],
        "prompt_calibration": prepared.to_json()["calibrations"],
        "dropped": harvest.dropped,
        "unfinished": harvest.unfinished,
        "schedule_lateness_s": asdict(lateness_of(harvest.records)) if plan.open_loop else None,
        "models": [asdict(of) for of in figures],
        "energy": asdict(energy) if energy else None,
    }
    return Outcome(figures=figures, energy=energy, notes=notes, summary=summary)


def _versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {"python": sys.version.split()[0]}
    for name in _DISTRIBUTIONS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def _commit() -> str | None:
    """Of the checkout that this file lies in; None outside of one."""
    try:
        asked = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=_GIT_TIMEOUT_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return asked.stdout.strip() or None
