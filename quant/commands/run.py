"""`quant run RECIPE.yaml`: every variant that a recipe asks for."""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from quant.run import Run, Step
    from server.models.manifest import Manifest

__all__ = ["add"]

_KEY_VARIABLE: Final = "WATTGATE_ADMIN_KEY"


def add(commands: Any) -> None:
    run = commands.add_parser("run", help="make the variants of a recipe")
    run.add_argument("recipe", type=Path, metavar="RECIPE.yaml", help="what to make, see docs/quant.md")
    run.add_argument("--dry-run", action="store_true", help="check everything, make nothing, say what would be made")
    run.add_argument("--replace", action="store_true", help="make directories of an older recipe anew")
    run.add_argument("--cache", type=Path, metavar="DIR", help="finished variants by content (default: OUTPUT/.cache)")
    run.add_argument(
        "--control", metavar="URL", help="take joules from this control API (its key: WATTGATE_ADMIN_KEY), not RAPL"
    )
    run.set_defaults(command=_run)


def _run(options: argparse.Namespace) -> None:
    from quant.recipe import read_recipe  # noqa: PLC0415

    recipe = read_recipe(options.recipe)
    from quant.run import make_step, plan_run  # noqa: PLC0415 - after the recipe: a wrong one needs no torch
    from quant.run_energy import energy_counter  # noqa: PLC0415
    from quant.run_progress import progress_bars  # noqa: PLC0415

    run = plan_run(recipe, options.cache, replace=options.replace)
    if options.dry_run:
        for step in run.steps:
            print(_planned(step))
        return
    key = os.environ.get(_KEY_VARIABLE)  # noqa: TID251 - a secret comes by the environment
    counter = energy_counter(options.control, key)
    began = time.monotonic()
    run.cache.remember_digests()
    with progress_bars() as bars:
        for step in run.steps:
            steady = step.conversion is not None
            with bars.bar(step.plan.name, run.checkpoint.size, steady=steady) as advance:
                manifest = make_step(run, step, counter, advance)
            print(_made(step, manifest), flush=True)
    print(_sum(run, time.monotonic() - began))


def _planned(step: Step) -> str:
    size = "size unknown" if step.size is None else f"{step.size / 1e6:,.2f} MB of weights"
    method = " ".join(filter(None, (step.plan.method, step.plan.scheme)))
    return f"{step.out}: {method}, {size}, {step.state}, key {step.key[:12]}"


def _made(step: Step, manifest: Manifest) -> str:
    size = sum(facts["size_bytes"] for name, facts in manifest.files.items() if name.endswith(".safetensors"))
    how = {"to make": "made", "cached": "from the cache", "there": "there already"}[step.state]
    took = f" in {manifest.seconds:.2f} s" if step.state == "to make" and manifest.seconds is not None else ""
    joules = f", {manifest.joules:,.1f} J" if step.state == "to make" and manifest.joules is not None else ""
    return f"{step.out}: {size / 1e6:,.2f} MB of weights, {how}{took}{joules}"


def _sum(run: Run, seconds: float) -> str:
    made = sum(step.state == "to make" for step in run.steps)
    return f"{len(run.steps)} variants, {made} made, {seconds:.1f} s"
