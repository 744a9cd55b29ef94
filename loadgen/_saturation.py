"""`--find-saturation`: one run after another, until the highest level that holds is known."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from loadgen._errors import LoadError
from loadgen._plan import Plan
from loadgen._report import DASH, count, milliseconds
from loadgen._report_html import write_html
from loadgen._search import Search
from loadgen._slo import Slo

__all__ = ["find_saturation", "verdict_of"]

_LEVEL_S: Final = 20.0
"""Of one run, where --run-time does not say."""
_WARM_UP_SHARE: Final = 0.25
"""Of a run, where --warm-up does not say: until the queue is as long as it will be."""
_ATTAINMENT: Final = 0.9
"""Share of requests within the SLO; as in DistServe (OSDI 2024), where goodput is defined so."""
_ERRORS: Final = 0.01
_ANSWERED: Final = 0.95
"""Of what was due, the share that is answered a second; below it the queue grows."""
_END_S: Final = 120.0
_INTERRUPTED: Final = 130


@dataclass(frozen=True, slots=True, kw_only=True)
class _Level:
    level: float
    folder: Path
    why: str | None
    """Why it does not hold; None: it holds."""
    summary: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        totals = self.summary["totals"]
        figures = ("output_tokens_per_s", "requests_per_s", "time_to_first_token_s", "inter_token_latency_s")
        return {
            "level": self.level,
            "passed": self.why is None,
            "why": self.why,
            "folder": str(self.folder),
            "offered_per_s": self.summary["offered_per_s"],
            "achieved_per_s": self.summary["achieved_per_s"],
            "goodput": totals["goodput"],
            **{name: totals[name] for name in figures},
        }


def find_saturation(options: Namespace, plan: Plan) -> int:
    """Runs headless Locusts with this one's own options, shows and writes the curve; gives the exit status.

    Raises `LoadError` where no run can begin, or nothing says when a level fails.
    """
    _check(options, plan)
    folder = Path(plan.output or f"runs/saturation-{datetime.now(UTC):%Y-%m-%dT%H%M%S}")
    axis = "rate" if plan.rate > 0 else "concurrency"
    search = Search(plan.rate or float(plan.concurrency), whole=plan.rate <= 0)
    levels: list[_Level] = []
    console = Console()
    try:
        while (level := search.next()) is not None:
            console.print(f"{axis} {level:g} …", highlight=False)
            found = _run_level(plan, axis, level, folder / f"{axis}-{level:g}")
            levels.append(found)
            search.tell(level, passed=found.why is None)
            console.print(f"  {'holds' if found.why is None else found.why}", highlight=False, markup=False)
            _write(folder, axis, levels, search, partial=True)
    except KeyboardInterrupt:
        console.print("Interrupted: the curve is partial.")
        return _INTERRUPTED
    _write(folder, axis, levels, search, partial=False)
    write_html(folder)
    console.print(_table(axis, levels))
    console.print(_sentence(axis, search), highlight=False)
    console.print(f"Results are in {folder}", highlight=False, soft_wrap=True)
    return 0


def verdict_of(summary: Mapping[str, Any], *, slo: bool) -> str | None:
    """Why a run's level does not hold; None if it does."""
    totals, offered = summary["totals"], summary["offered_per_s"]
    rate = summary["validity"]["rate"]
    failed = sum(totals["errors"].values())
    window_s = summary["window"]["length_s"]
    if not totals["ok"]:
        return f"no request was answered: {totals['first_message'] or 'none was sent'}"
    if rate["verdict"] == "invalid":
        return str(rate["because"])
    if failed > _ERRORS * totals["requests"]:
        return f"{failed} of {totals['requests']} requests failed"
    if offered and window_s and totals["requests_per_s"] < _ANSWERED * offered - 2 * (offered / window_s) ** 0.5:
        # Two standard deviations of a Poisson count below: no accident of the window.
        return f"{offered:.3g} requests/s were due, {totals['requests_per_s']:.3g} answered"
    if slo and (totals["goodput"]["attainment"] or 0.0) < _ATTAINMENT:
        return f"{totals['goodput']['attainment'] or 0.0:.0%} of the requests met the SLO, below {_ATTAINMENT:.0%}"
    return None


def _check(options: Namespace, plan: Plan) -> None:
    if not options.headless:
        raise LoadError("--find-saturation starts runs of its own and has no web page: give --headless.")
    if options.master:
        raise LoadError("--find-saturation starts runs on this machine alone: give --processes in place of --master.")
    if plan.rate <= 0 and not Slo.parse(plan.slo):
        raise LoadError(
            "--find-saturation in closed loop needs --slo: more connections never fail by themselves. "
            "Or give --rate to begin with."
        )


def _run_level(plan: Plan, axis: str, level: float, folder: Path) -> _Level:
    run_s = plan.run_time_s or _LEVEL_S
    port = _free_port()
    asked = {
        "--output": folder,
        "--run-time": f"{run_s:g}s",
        "--warm-up": plan.warm_up_s or run_s * _WARM_UP_SHARE,
        # Workers of this search's own command line wait at the port that is given there.
        "--master-bind-port": port,
        "--master-port": port,
        ("--rate" if axis == "rate" else "--users"): f"{level:g}",
    }
    command = [sys.executable, "-m", "locust", *sys.argv[1:], "--no-find-saturation", "--loglevel", "WARNING"]
    _locust([*command, *(str(part) for pair in asked.items() for part in pair)], run_s + _END_S)
    try:
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise LoadError(f"The run at {axis} {level:g} left no summary ({exc}).") from exc
    return _Level(level=level, folder=folder, summary=summary, why=verdict_of(summary, slo=bool(Slo.parse(plan.slo))))


def _locust(command: Sequence[str], bound_s: float) -> None:
    """Raises `LoadError` with the sentence of a run that could not begin."""
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            _, said = process.communicate(timeout=bound_s)
        except subprocess.TimeoutExpired:
            process.kill()
            raise LoadError(f"A run did not end within {bound_s:g} s and was stopped.") from None
        except KeyboardInterrupt:
            # The run has been interrupted by the same Ctrl-C, and writes what it has.
            process.wait(timeout=_END_S)
            raise
    if process.returncode not in {0, 1}:
        raise LoadError(said.strip().splitlines()[-1] if said.strip() else f"A run ended with {process.returncode}.")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _write(folder: Path, axis: str, levels: Sequence[_Level], search: Search, *, partial: bool) -> None:
    curve = {
        "schema": 1,
        "axis": axis,
        "partial": partial,
        "levels": [one.to_json() for one in sorted(levels, key=lambda one: one.level)],
        "best": search.best,
        "failed": search.failed,
    }
    (folder / "curve.json").write_text(json.dumps(curve, indent=2) + "\n", encoding="utf-8")


def _table(axis: str, levels: Sequence[_Level]) -> Table:
    table = Table(title="What held", title_justify="left", pad_edge=False, box=None)
    for heading in (axis, "answered/s", "tok/s", "TTFT p95", "ITL p95", "good"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("", overflow="fold")
    for one in sorted(levels, key=lambda one: one.level):
        totals = one.summary["totals"]
        good = totals["goodput"]["attainment"] if totals["goodput"] else None
        table.add_row(
            f"{one.level:g}",
            count(totals["requests_per_s"], digits=1),
            count(totals["output_tokens_per_s"]),
            milliseconds(totals["time_to_first_token_s"]["p95"]),
            milliseconds(totals["inter_token_latency_s"]["p95"]),
            DASH if good is None else f"{good:.0%}",
            one.why or "holds",
        )
    return table


def _sentence(axis: str, search: Search) -> str:
    unit = " requests/s" if axis == "rate" else " requests in flight"
    if search.best is None:
        return f"No level holds, down to {search.failed:g}{unit}."
    if search.failed is None:
        return f"{search.best:g}{unit} hold; no level was found that does not."
    return f"{search.best:g}{unit} hold, {search.failed:g} do not."
