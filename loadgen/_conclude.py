"""The end of a run: joules joined, figures made, results written and shown."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console

from loadgen._energy import Counters, EnergyReport, settled_counters
from loadgen._errors import LoadError
from loadgen._gateway import Prepared
from loadgen._harvest import Harvest, Outcome, summary_of
from loadgen._plan import Plan
from loadgen._report import run_table, write_run

__all__ = ["Beginning", "conclude", "show"]

_ENERGY_S: Final = 15.0
"""Longest wait for the server to attribute the run's joules."""

_log = logging.getLogger("loadgen")


@dataclass(frozen=True, slots=True, kw_only=True)
class Beginning:
    """What must be known of a run's start at its end."""

    plan: Plan
    prepared: Prepared
    wall: str
    """The wall clock, ISO 8601."""
    energy: Counters | None


def conclude(beginning: Beginning, harvest: Harvest, *, ended_at: float, interrupted: bool) -> Outcome:
    """`ended_at` is CLOCK_MONOTONIC when the last request was over."""
    plan = beginning.plan
    notes = ["Interrupted: the results are partial."] if interrupted else []
    energy = _energy(plan, beginning.energy, ended_at, notes)
    outcome = summary_of(plan, beginning.prepared, harvest, energy=energy, notes=notes, started=beginning.wall)
    folder = Path(plan.output or f"runs/load-{beginning.wall.partition('+')[0].replace(':', '')}")
    write_run(folder, outcome.summary, harvest.records)
    _log.info("Results are in %s", folder)
    return outcome


def show(outcome: Outcome) -> None:
    console = Console()
    console.print(run_table(outcome.figures, outcome.energy))
    for note in outcome.notes:
        console.print(note)


def _energy(plan: Plan, before: Counters | None, ended_at: float, notes: list[str]) -> EnergyReport | None:
    if before is None:
        return None
    try:
        after, settled = settled_counters(plan.control, ended_at=ended_at, wait_s=_ENERGY_S)
    except LoadError as exc:
        notes.append(str(exc))
        return None
    if not settled:
        notes.append("Not all energy was attributed when the results were written: the joules are too low.")
    return after.since(before)
