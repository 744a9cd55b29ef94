"""All runs of a comparison, one after the other."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from loadgen._compare._analysis import analyse, blocks_wanted, title_of
from loadgen._compare._design import TWIN, Level, Run, block_of
from loadgen._compare._plan import ComparePlan
from loadgen._compare._reading import Figures, read_figures
from loadgen._compare._store import Store
from loadgen._compare._target import Target
from loadgen._demo._processes import Children, last_lines
from loadgen._errors import LoadError
from loadgen._report import count, milliseconds

__all__ = ["Campaign"]

_START_AND_DRAIN_S: Final = 90.0
_CAPACITY_BLOCK: Final = 0


@dataclass(kw_only=True)
class Campaign:
    """Measures what is not measured yet; `figures` has all that is."""

    plan: ComparePlan
    store: Store
    target: Target
    children: Children
    console: Console
    root: Path
    locust: Sequence[str]
    """The command that makes one load; options follow."""
    clock: Callable[[], float] = time.monotonic
    figures: dict[Run, Figures] = field(default_factory=dict)
    _spent: list[float] = field(default_factory=list)
    """Seconds that each run of this process took."""

    def run(self, given: Sequence[Level] | None = None) -> list[Level]:
        """Returns the levels; `given` ones replace a capacity that would have to be measured. Raises `LoadError`."""
        self.store.save()
        levels = self.levels(given)
        total = int(self.store.recall("blocks") or self.plan.blocks.at_least)
        block = 1
        while block <= total:
            self._run_block(block, levels, total)
            if block == self.plan.blocks.at_least and self.store.recall("blocks") is None:
                total = self._decide_blocks(levels)
            block += 1
        return levels

    def levels(self, given: Sequence[Level] | None) -> list[Level]:
        """Those of the plan; a ladder needs the capacities, which are measured here."""
        known = self.store.recall("levels")
        if known is not None:
            return [Level(**level) for level in known]
        levels = list(given) if given else [*self.plan.fixed_levels(), *self._ladder()]
        self.store.keep("levels", [{"loop": level.loop, "value": level.value} for level in levels])
        return levels

    def _ladder(self) -> list[Level]:
        """Percent of the largest capacity that any configuration has: the same rates for all."""
        load = self.plan.load
        if not load.percent_of_capacity:
            return []
        level = Level(loop="closed", value=float(load.capacity_concurrency))
        capacities = {}
        for name in self.plan.names:
            run = Run(block=_CAPACITY_BLOCK, level=level, configuration=name)
            found = self.measured(run).values["requests_per_s"]
            if not found:
                raise LoadError(f"{name} answered nothing at {level.title}; its capacity cannot be measured.")
            capacities[name] = found
            self._say(f"Capacity of {name}: {found:.4g} requests/s")
        largest = max(capacities.values())
        return [
            Level(loop="open", value=float(f"{largest * percent / 100:.3g}")) for percent in load.percent_of_capacity
        ]

    def _run_block(self, block: int, levels: Sequence[Level], total: int) -> None:
        runs = block_of(
            block,
            configurations=self.plan.names,
            levels=levels,
            seed=self.plan.seed,
            restarts=self.plan.restarts,
        )
        for number, run in enumerate(runs):
            known = self.store.finished(run)
            if known is not None:
                self.figures[run] = known
                continue
            found = self.figures[run] = self.measured(run)
            left = len(runs) * (total - block) + len(runs) - number - 1
            self._say(f"block {block}/{total}  {run.level.title}  {run.configuration}: {_told(found)}{self._eta(left)}")

    def _decide_blocks(self, levels: Sequence[Level]) -> int:
        """Once, by the spread of the first blocks: looking again and again would bend the error rates."""
        total, neediest = blocks_wanted(self.plan, analyse(self.plan, levels, self.figures))
        self.store.keep("blocks", total)
        if neediest is not None:
            self._say(f"{total} blocks in all: {neediest.configuration}'s {title_of(neediest.metric)} varies most.")
        return total

    def measured(self, run: Run) -> Figures:
        """One run, unless it is done already. Raises `LoadError` if it gave no figures."""
        known = self.store.finished(run)
        if known is not None:
            return known
        started = self.clock()
        configuration = self.plan.configuration(run.configuration.removesuffix(TWIN))
        self.target.make_ready(configuration)
        folder = self.store.run_folder(run)
        log = folder / "locust.log"
        process = self.children.start(
            self._command(run, configuration.model, folder), log=log, cwd=self.root, grace_s=0.0
        )
        status = self.children.wait(process, self.plan.load.run_time_s + _START_AND_DRAIN_S, f"The load {run.key}")
        try:
            figures = read_figures(folder, configuration.model)
        except LoadError as exc:
            raise LoadError(f"{exc} (status {status}):\n{last_lines(log)}") from exc
        if figures.requests == figures.failed:
            raise LoadError(f"{run.key}: all {figures.requests} requests failed; see {log}.")
        self.store.finish(run, figures)
        self._spent.append(self.clock() - started)
        return figures

    def _command(self, run: Run, model: str, folder: Path) -> list[str]:
        load = self.plan.load
        options: dict[str, Any] = {
            **{f"--{name}": value for name, value in load.options.items()},
            "--host": self.target.host,
            "--control": self.target.control or "",
            "--models": model,
            "--warm-up": load.warm_up_s,
            "--run-time": f"{load.run_time_s}s",
            "--requests": load.requests,
            # Lengths and arrivals are those of the block, for all configurations; texts are new in every run, or the
            # reference's twin would find the reference's prompts in the engine's cache.
            "--seed": self.plan.seed + run.block,
            "--salt": hashlib.sha256(f"{self.plan.hash()} {run.key}".encode()).hexdigest()[:8],
            "--output": folder,
            "--slo": load.slo,
            "--loglevel": "WARNING",
            **({"--concurrency": int(run.level.value)} if run.level.loop == "closed" else {"--rate": run.level.value}),
        }
        command = list(self.locust)
        for name, value in options.items():
            if value is not False and value != "":
                command += [name] if value is True else [name, str(value)]
        return command

    def _eta(self, left: int) -> str:
        seconds = left * sum(self._spent) / len(self._spent)
        return f"  ({left} runs, about {seconds / 60:.0f} min left)" if left else ""

    def _say(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False)


def _told(found: Figures) -> str:
    parts = [f"{count(found.values['tokens_per_s'])} tokens/s", f"ITL p50 {milliseconds(found.values['itl_p50'])} ms"]
    parts += [f"{count(found.values['joules_per_token'], digits=4)} J/token"]
    return ", ".join([*parts, f"{found.failed} FAILED"] if found.failed else parts)
