"""Makes the variants of a recipe, each once."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

from quant.cache import Cache, is_whole
from quant.checkpoint import Checkpoint
from quant.compressor.environment import quant_python
from quant.compressor.table import method_options
from quant.errors import OutputError, QuantError, RecipeError, SchemeError
from quant.manifest import combined_sha256, digests_of, files_of, key_of, own_tools, sha256_of, tools_in, write_manifest
from quant.methods import Options, method_of
from quant.methods.cast import Cast
from quant.recipe import Recipe, VariantPlan
from quant.rtn import Rounding, open_unquantized
from quant.run_compressor import run_compressor
from quant.run_costs import Costs, counting_costs
from quant.run_energy import EnergyCounter
from quant.run_source import find_source
from quant.stream import Conversion, converted_size, copied_files, plan_files, write_converted
from quant.whole_directory import whole_directory
from server.errors import CheckpointError
from server.models.manifest import Manifest, read_manifest

__all__ = ["Run", "State", "Step", "make_step", "plan_run"]

State = Literal["to make", "cached", "there"]
Advance = Callable[[int], None]

_DEFAULTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "w4a16": {"group_size": 128, "symmetric": True, "search": False},
    "w8a8-int8": {"precise": False},
}
"""Of the own schemes with choices, so that a default and the same choice by hand are one variant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One variant: all that is known before it is made."""

    plan: VariantPlan
    out: Path
    key: str
    options: Mapping[str, Any]  # defaults filled in
    tools: Mapping[str, str]
    state: State
    conversion: Conversion | None  # None: the method runs elsewhere
    size: int | None  # bytes of weights to be written; None: only the method knows


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A recipe that can be done: the source is sound, every variant fits it."""

    recipe: Recipe
    checkpoint: Checkpoint
    sources: Mapping[str, str] = field(repr=False)  # file → digest
    cache: Cache
    steps: tuple[Step, ...]


def plan_run(recipe: Recipe, cache_folder: Path | None = None, *, replace: bool = False) -> Run:
    """Check everything that can be checked without making anything. Raises a `QuantError`.

    `replace`: a directory that an older recipe has made may be made anew.
    """
    checkpoint = open_unquantized(find_source(recipe.source, recipe.path.parent))
    conversions = [_conversion(plan, checkpoint) for plan in recipe.variants]
    sizes = [_size(plan, made, checkpoint) for plan, made in zip(recipe.variants, conversions, strict=True)]
    cache = Cache(cache_folder or recipe.output / ".cache")
    weights = [checkpoint.folder / file for file in checkpoint.files]
    files = [*weights, checkpoint.folder / "config.json", *copied_files(checkpoint.folder)]
    sources = digests_of(files, cache.digest)
    steps = [
        _step(plan, (made, size), recipe.output / plan.name, sources, (cache, replace))
        for plan, made, size in zip(recipe.variants, conversions, sizes, strict=True)
    ]
    return Run(recipe=recipe, checkpoint=checkpoint, sources=sources, cache=cache, steps=tuple(steps))


def make_step(run: Run, step: Step, counter: EnergyCounter | None, advance: Advance = lambda _: None) -> Manifest:
    """Make one variant, or take it from the cache. Raises a `QuantError`; the directory is whole or as before."""
    manifest = run.cache.find(step.key) or _make(run, step, counter, advance)
    if step.state != "there":
        _place(run.cache, step)
    return manifest


def _step(
    plan: VariantPlan,
    made: tuple[Conversion | None, int | None],
    out: Path,
    sources: Mapping[str, str],
    known: tuple[Cache, bool],
) -> Step:
    options = _filled(plan)
    tools = own_tools() if plan.entry.tier == "own" else tools_in(quant_python())
    what = {"method": plan.method, "scheme": plan.scheme, "options": _by_content(options), "tools": tools}
    key = key_of(sources, what)
    cache, replace = known
    state: State = "cached" if cache.find(key) else "to make"
    if out.exists():
        found = _manifest_of(out)
        if found is not None and found.key == key:
            state = "there" if is_whole(out, found) else state  # damaged: its own work, to be made anew
        elif found is None or not replace:
            raise OutputError(_in_the_way(out, known=found is not None))
    conversion, size = made
    return Step(
        plan=plan, out=out, key=key, options=options, tools=tools, state=state, conversion=conversion, size=size
    )


def _in_the_way(out: Path, *, known: bool) -> str:
    if known:
        return f"{out} was made of another source, recipe or tool. Run with --replace to make it anew, or rename one."
    return f"{out} exists and is no recipe's work. Remove it, or choose another name or output directory."


def _manifest_of(out: Path) -> Manifest | None:
    try:
        return read_manifest(out)
    except CheckpointError:
        return None


def _conversion(plan: VariantPlan, checkpoint: Checkpoint) -> Conversion | None:
    if plan.entry.tier != "own":
        return None
    options = plan.options
    try:
        if plan.method == "cast":
            return Cast.to(options["dtype"])
        choices = Options(**{key: value for key, value in options.items() if key != "ignore"})
        return Rounding.of(checkpoint, method_of(plan.scheme or "", choices), options.get("ignore", ()))
    except SchemeError as exc:
        raise _placed(plan, exc) from exc


def _size(plan: VariantPlan, conversion: Conversion | None, checkpoint: Checkpoint) -> int | None:
    """Bytes that will be written; finds every tensor that does not fit. Raises a `QuantError`."""
    if conversion is None:
        return None
    try:
        return converted_size(checkpoint, plan_files(checkpoint, conversion))
    except SchemeError as exc:
        raise _placed(plan, exc) from exc


def _placed(plan: VariantPlan, exc: QuantError) -> RecipeError:
    return plan.place.wrong(f"is not possible: {exc}")


def _filled(plan: VariantPlan) -> dict[str, Any]:
    if plan.entry.tier == "own":
        return {**_DEFAULTS.get(plan.scheme or "", {}), **plan.options}
    chosen = asdict(method_options(plan.method, {"scheme": plan.scheme, **plan.options}))
    if chosen.get("calibration") is not None:
        chosen["calibration"] = str(chosen["calibration"])
    return {key: chosen[key] for key in plan.entry.options if key in chosen}


def _by_content(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options as the key sees them: a calibration text by its content, not its place."""
    path = options.get("calibration")
    return {**options, "calibration": sha256_of(Path(path))} if path else dict(options)


def _make(run: Run, step: Step, counter: EnergyCounter | None, advance: Advance) -> Manifest:
    plan = step.plan
    with whole_directory(run.cache.entry(step.key)) as folder:
        said: Mapping[str, Any] = {}
        with counting_costs(counter) as costs:
            if step.conversion is not None:
                write_converted(run.checkpoint, step.conversion, folder, advance)
            else:
                given = {"scheme": plan.scheme, **step.options}
                given = {key: value for key, value in given.items() if value is not None}
                said = run_compressor(plan.method, run.checkpoint.folder, folder, given)
            files = files_of(folder)
        manifest = _manifest(run, step, costs, files=files, said=said)
        write_manifest(folder, manifest)
    return manifest


def _manifest(run: Run, step: Step, costs: Costs, *, files: Mapping[str, Any], said: Mapping[str, Any]) -> Manifest:
    plan, folder = step.plan, run.checkpoint.folder
    weights = {file: run.sources[file] for file in run.checkpoint.files}
    return Manifest(
        name=plan.name,
        method=plan.method,
        scheme=plan.scheme,
        options=step.options,
        tier=plan.entry.tier,
        tools=step.tools,
        key=step.key,
        recipe=run.recipe.path.name,
        source={
            "name": folder.name,
            "weights_sha256": combined_sha256(weights),
            "size_bytes": sum((folder / file).stat().st_size for file in weights),
        },
        files=files,
        seconds=round(costs.seconds, 3),
        # A method of another environment has the memory there.
        peak_memory_bytes=said.get("peak_memory_bytes") if said else costs.peak_memory_bytes,
        joules=None if costs.joules is None else round(costs.joules, 3),
        energy_meter=costs.energy_meter,
        made_at=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    )


def _place(cache: Cache, step: Step) -> None:
    if not step.out.exists():
        cache.place(step.key, step.out)
        return
    fresh, stale = (step.out.with_name(f".{step.out.name}.{age}") for age in ("fresh", "stale"))
    for leftover in (fresh, stale):
        shutil.rmtree(leftover, ignore_errors=True)
    cache.place(step.key, fresh)
    step.out.rename(stale)  # what was there before can be made again; between the two lines nothing is there
    fresh.rename(step.out)
    shutil.rmtree(stale, ignore_errors=True)
