"""The end of a run: joules joined, figures made, results written and shown."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from rich.console import Console

from loadgen._files import SUMMARY, write_run
from loadgen._gateway import Prepared
from loadgen._harvest import Harvest, Joined, Outcome, summary_of
from loadgen._plan import Plan
from loadgen._provenance import engines_at
from loadgen._report import generator_lines, run_table, why_not_lines
from loadgen._report_html import write_html
from loadgen._secrets import control_headers
from loadgen._server_watch import ServerSide, ServerWatch, check_control
from loadgen._slo import Slo

__all__ = ["INTERRUPTED", "Beginning", "begin", "check", "conclude", "show"]

INTERRUPTED: Final = "Interrupted: the results are partial."

_log = logging.getLogger("loadgen")


@dataclass(frozen=True, slots=True, kw_only=True)
class Beginning:
    """What must be known of a run's start at its end."""

    plan: Plan
    prepared: Prepared
    wall: str
    """The wall clock, ISO 8601."""
    watch: ServerWatch | None
    """None: no control URL was given."""


def check(plan: Plan) -> None:
    """What should fail before a run begins rather than at its end. Raises `LoadError`."""
    Slo.parse(plan.slo)
    if plan.control:
        check_control(plan)


def begin(plan: Plan, prepared: Prepared) -> Beginning:
    """Once a run, at its start, on the master alone. Raises `LoadError`."""
    return Beginning(
        plan=plan,
        prepared=prepared,
        wall=datetime.now(UTC).isoformat(timespec="seconds"),
        watch=ServerWatch(plan, prepared) if plan.control else None,
    )


def conclude(beginning: Beginning, harvest: Harvest, *, ended_at: float, interrupted: bool) -> Outcome:
    """`ended_at` is CLOCK_MONOTONIC when the last request was over."""
    plan = beginning.plan
    notes = [INTERRUPTED] if interrupted else []
    side = _server_side(beginning, harvest, ended_at)
    notes += side.notes
    joined = _joined(plan, side)
    outcome = summary_of(plan, beginning.prepared, harvest, joined=joined, notes=notes, started=beginning.wall)
    outcome.summary["partial"] = interrupted
    folder = Path(plan.output or f"runs/load-{beginning.wall.partition('+')[0].replace(':', '')}")
    joules = {id_: energy.to_json() for id_, energy in side.requests.items()}
    write_run(folder, outcome.summary, harvest.records, slo=outcome.slo, joules=joules)
    write_html(folder)
    if beginning.watch is not None:
        beginning.watch.told(partial=interrupted, summary=folder / SUMMARY)
    _log.info("Results are in %s", folder)
    return outcome


def show(outcome: Outcome) -> None:
    console = Console()
    console.print(run_table(outcome.figures, outcome.energy))
    for line in (*generator_lines(outcome.summary), *why_not_lines(outcome.figures), *outcome.notes):
        console.print(line, markup=False, highlight=False)


def _server_side(beginning: Beginning, harvest: Harvest, ended_at: float) -> ServerSide:
    if beginning.watch is None:
        return ServerSide()
    window = harvest.window(beginning.plan)
    return beginning.watch.end(harvest.records, window, origins_s=harvest.origins, ended_at=ended_at)


def _joined(plan: Plan, side: ServerSide) -> Joined:
    headers = control_headers(token=plan.control_token)
    return Joined(
        energy=side.energy,
        engines=engines_at(plan.control, headers) if plan.control else None,
        server=side.server,
        run=side.run,
    )
