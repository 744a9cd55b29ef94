"""The steps of `wattgate compare`, in their order."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from rich.console import Console

from loadgen._compare._analysis import analyse
from loadgen._compare._baseline import Baseline, regressions, sentences
from loadgen._compare._campaign import Campaign
from loadgen._compare._derived import derived
from loadgen._compare._design import Level
from loadgen._compare._document import PlanError
from loadgen._compare._html import page
from loadgen._compare._pareto import front
from loadgen._compare._plan import ComparePlan
from loadgen._compare._plan_file import read_plan
from loadgen._compare._ranks import ServerView, ask_server
from loadgen._compare._results import Results, show, write
from loadgen._compare._store import Store
from loadgen._compare._tables import grids
from loadgen._compare._target import Commands, GivenTarget, OwnGateway, Target
from loadgen._compare._verdict import verdict
from loadgen._demo._processes import Children, InterruptedDemo
from loadgen._errors import LoadError

__all__ = ["Places", "main"]

_ROOT: Final = Path(__file__).resolve().parents[2]
_WORSE: Final = 1
_REFUSED: Final = 2
_NO_RESULT: Final = 3
_INTERRUPTED: Final = 130


def _server(verb: str) -> list[str]:
    return [sys.executable, "-m", "server", verb, "--config"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """What compare runs with; a test may put others."""

    root: Path = _ROOT
    runs: Path = _ROOT / "runs"
    locust: Sequence[str] = (
        sys.executable,
        "-m",
        "locust",
        "-f",
        str(_ROOT / "loadgen"),
        "--headless",
        "--only-summary",
    )
    commands: Commands = field(
        default_factory=lambda: Commands(
            up=lambda file: [*_server("up"), str(file)], reload=lambda file: [*_server("reload"), str(file)]
        )
    )


def main(argv: Sequence[str], *, places: Places | None = None, console: Console | None = None) -> int:
    """0: done. 1: worse than the baseline. 2: wrong input. 3: not measured, or not trustworthy. 130: interrupted."""
    options = _parse(argv)
    console = console or Console()
    try:
        return _compare(options, places or Places(), console)
    except (InterruptedDemo, KeyboardInterrupt):
        _say(console, "Interrupted. Finished runs are kept; the same command goes on where this one stopped.")
        return _INTERRUPTED
    except PlanError as exc:
        _say(console, str(exc))
        return _REFUSED
    except LoadError as exc:
        _say(console, f"The comparison stopped. {exc}\nFinished runs are kept; the same command goes on from there.")
        return _NO_RESULT


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="wattgate compare",
        description="Compare variants, adapters and engine options under load, with intervals. docs/compare.md",
    )
    parser.add_argument("plan", type=Path, metavar="PLAN.yaml")
    parser.add_argument("--output", type=Path, metavar="DIR", help="default: the plan's, else runs/compare-…")
    parser.add_argument("--baseline", type=Path, metavar="FILE", help="results.json to hold these runs against")
    parser.add_argument("--check", action="store_true", help="only check the plan and say what it would do")
    return parser.parse_args(argv)


def _compare(options: argparse.Namespace, places: Places, console: Console) -> int:
    plan = read_plan(options.plan)
    if plan.target.config is not None:
        for configuration in plan.configurations:
            derived(plan.target.config, plan.configurations, configuration, ports=(0, 0), state=Path("state"))
    baseline = Baseline.read(options.baseline, plan) if options.baseline else None
    _say(console, _announcement(plan))
    if options.check:
        return 0
    folder = options.output or plan.output or places.runs / f"compare-{options.plan.stem}-{plan.hash()[:8]}"
    store = Store(folder.resolve(), plan)
    with Children() as children:
        target = _target(plan, store, places, children, console)
        campaign = Campaign(
            plan=plan,
            store=store,
            target=target,
            children=children,
            console=console,
            root=places.root,
            locust=places.locust,
        )
        levels = campaign.run(baseline.levels if baseline else None)
        server = _server_view(plan, store, target, console)
    return _conclude(campaign, levels, server, baseline)


def _target(plan: ComparePlan, store: Store, places: Places, children: Children, console: Console) -> Target:
    if plan.target.host is not None:
        return GivenTarget(host=plan.target.host, control=plan.target.control)
    return OwnGateway(plan, places.commands, folder=store.folder, root=places.root, children=children, console=console)


def _server_view(plan: ComparePlan, store: Store, target: Target, console: Console) -> ServerView:
    """Asked once, while the gateway still runs."""
    known = store.recall("server")
    if known is not None:
        return ServerView.from_json(known)
    if plan.target.config is not None:
        # After a resume in which every run was there already, nothing has been started.
        target.make_ready(plan.configurations[0])
    view = ask_server(plan, target.control)
    if view.why_none:
        _say(console, f"No ranks and no quality: {view.why_none}.")
    store.keep("server", view.to_json())
    return view


def _conclude(campaign: Campaign, levels: Sequence[Level], server: ServerView, baseline: Baseline | None) -> int:
    analysis = analyse(campaign.plan, levels, campaign.figures)
    found = regressions(analysis, baseline) if baseline else []
    points = front(analysis, server)
    said = verdict(analysis, server) + (sentences(found, baseline, campaign.plan) if baseline else [])
    results = Results(
        analysis=analysis,
        server=server,
        points=points,
        verdict=said,
        grids=grids(analysis, points, server),
        regressions=found,
    )
    folder = campaign.store.folder
    write(results, folder, html=page(results))
    show(results, campaign.console)
    _say(campaign.console, f"Results: {folder}/report.html, results.md, results.json")
    if any(one.certain for one in found):
        return _WORSE
    return 0 if analysis.trust.trusted else _NO_RESULT


def _announcement(plan: ComparePlan) -> str:
    levels = len(plan.load.closed) + len(plan.load.rates) + len(plan.load.percent_of_capacity)
    runs = (len(plan.names) + 1) * levels * plan.blocks.at_least
    capacity = len(plan.names) if plan.load.percent_of_capacity else 0
    minutes = (runs + capacity) * plan.load.run_time_s / 60
    more = f" (up to {plan.blocks.at_most} if intervals stay wide)" if plan.blocks.half_width else ""
    return (
        f"{', '.join(plan.names[1:])} against {plan.reference}, and {plan.reference} against itself: "
        f"{plan.blocks.at_least} blocks{more}, {runs + capacity} runs of at most {plan.load.run_time_s:g} s, "
        f"about {minutes:.0f} min and some seconds a run to start."
    )


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False)
