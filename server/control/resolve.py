"""Fills in what the configuration leaves open about each engine, and checks it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from server.config import Config, EngineSettings
from server.control.cores import CoreWish, parse_cores, plan_cores
from server.control.devices import CpuAbilities, Gpu, Place, facts_of, gpu_shares, place_engines
from server.engines import ENGINES, StartSpec
from server.engines.launchers import LAUNCHERS
from server.errors import CheckpointError, IncompatibleError
from server.models import Checkpoint, DeviceFacts, ModelCard, check_checkpoint, memory_needed_bytes, read_checkpoint
from server.units import Bytes

__all__ = ["UNKNOWN_PRECISION", "Resolved", "resolve_engines"]

UNKNOWN_PRECISION: Final = "unknown"
"""Stands where nothing says it; such an engine is never started."""

_PRECISION_OF_DTYPE: Final[Mapping[str, str]] = {
    "bfloat16": "bf16",
    "float16": "fp16",
    "half": "fp16",
    "float32": "fp32",
    "float": "fp32",
}
_CHECKED: Final = frozenset({"bf16", "fp16", "fp32", "fp8", "int8", "int4"})
"""Precisions that a card tells for sure; any other name in the configuration is the reader's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """One engine with nothing left open."""

    settings: EngineSettings
    variant: str
    precision: str
    checkpoint: Checkpoint | None
    """None: it runs elsewhere, is not downloaded yet, or cannot be read (then `problem` says so)."""
    place: Place
    facts: DeviceFacts
    cores: frozenset[int]
    """Empty: bound to none."""
    start_cores: frozenset[int]
    gpu_share: float | None
    problem: str | None
    """Why it must not be started, and what to do; None: nothing is known against it."""

    @property
    def card(self) -> ModelCard | None:
        return None if self.checkpoint is None else self.checkpoint.card

    @property
    def full_id(self) -> str:
        return f"{self.settings.model}:{self.variant}"

    @property
    def upstream_model(self) -> str:
        """What the engine calls the base model."""
        if self.place.kind == "remote":
            return self.settings.upstream_model or self.settings.model
        return self.full_id

    @property
    def memory_needed(self) -> Bytes | None:
        """Of the host; None: unknown, or it computes elsewhere."""
        if self.place.kind != "cpu" or self.checkpoint is None:
            return None
        limits = self.settings.adapters
        return memory_needed_bytes(
            self.checkpoint,
            kv_cache_gib=self.settings.options.kv_cache_gib or 1.0,
            max_rank=limits.max_rank if limits else 0,
            max_loaded=limits.max_loaded if limits else 0,
        )

    def spec(self, environment: Path) -> StartSpec:
        return StartSpec(
            settings=self.settings,
            environment=environment,
            served_names=(self.full_id, self.settings.model),
            cores=tuple(sorted(self.cores)),
            gpus=self.place.gpus,
            gpu_share=self.gpu_share,
        )


def resolve_engines(
    config: Config, *, allowed: frozenset[int], gpus: Sequence[Gpu], cpu: CpuAbilities
) -> dict[str, Resolved]:
    """Every engine by name, in the configuration's order. Reads checkpoints' headers (milliseconds), starts nothing.

    `cpu`: see `devices.cpu_abilities`.

    What is wrong with one engine stands in its `problem`; nothing is raised.
    """
    places = place_engines(config, gpus)
    wishes = [
        CoreWish(name=settings.name, cores=parse_cores(settings.device))
        for settings, place in zip(config.engines, places, strict=True)
        if place.kind == "cpu"
    ]
    plan = plan_cores(wishes, allowed, workers=config.gateway.workers)
    shares = gpu_shares(config, places)
    resolved: dict[str, Resolved] = {}
    for settings, place, share in zip(config.engines, places, shares, strict=True):
        engine = _resolve(settings, place, facts_of(settings, place, gpus, cpu=cpu))
        engine = dataclasses.replace(
            engine,
            cores=plan.engines.get(settings.name, frozenset()),
            start_cores=plan.start if place.kind == "cpu" else frozenset(),
            gpu_share=share,
        )
        problem = engine.problem or _device_problem(engine, allowed, gpus) or _twin_problem(engine, resolved.values())
        resolved[settings.name] = dataclasses.replace(engine, problem=problem)
    return resolved


def _resolve(settings: EngineSettings, place: Place, facts: DeviceFacts) -> Resolved:
    checkpoint, problem = _read(settings, place)
    actual = _actual_precision(settings, checkpoint)
    precision = settings.precision or actual or settings.variant or UNKNOWN_PRECISION
    return Resolved(
        settings=settings,
        variant=settings.variant or precision,
        precision=precision,
        checkpoint=checkpoint,
        place=place,
        facts=facts,
        cores=frozenset(),
        start_cores=frozenset(),
        gpu_share=None,
        problem=problem
        or _name_problem(settings)
        or _precision_problem(settings, precision, actual)
        or _rule_problem(settings, checkpoint, facts),
    )


def _read(settings: EngineSettings, place: Place) -> tuple[Checkpoint | None, str | None]:
    if place.kind == "remote" or settings.checkpoint is None or settings.checkpoint.startswith("hf:"):
        return None, None
    try:
        return read_checkpoint(Path(settings.checkpoint)), None
    except CheckpointError as exc:
        return None, str(exc)


def _actual_precision(settings: EngineSettings, checkpoint: Checkpoint | None) -> str | None:
    """What will compute, where the checkpoint and the options tell for sure."""
    if checkpoint is None or settings.options.quantization is not None:
        return None
    card = checkpoint.card
    if card.quantization == "none" and settings.options.dtype not in {None, "auto"}:
        return _PRECISION_OF_DTYPE.get(settings.options.dtype or "")
    return card.precision


def _name_problem(settings: EngineSettings) -> str | None:
    if settings.kind not in ENGINES:
        return f"There is no engine kind {settings.kind!r}. Known: {', '.join(sorted(ENGINES))}."
    if settings.launcher not in LAUNCHERS:
        return f"There is no launcher {settings.launcher!r}. Known: {', '.join(sorted(LAUNCHERS))}."
    return None


def _precision_problem(settings: EngineSettings, precision: str, actual: str | None) -> str | None:
    if precision == UNKNOWN_PRECISION:
        return f"The precision of {settings.checkpoint} cannot be read from here. Name it, as in `precision: bf16`."
    if actual is not None and precision != actual and {precision, actual} <= _CHECKED:
        return f"`precision` says {precision}, but {settings.checkpoint} would be served in {actual}. Correct it."
    return None


def _rule_problem(settings: EngineSettings, checkpoint: Checkpoint | None, facts: DeviceFacts) -> str | None:
    if checkpoint is None:
        return None
    try:
        check_checkpoint(checkpoint, facts, dtype=settings.options.dtype, adapters=settings.adapters is not None)
    except IncompatibleError as exc:
        return str(exc)
    return None


def _device_problem(engine: Resolved, allowed: frozenset[int], gpus: Sequence[Gpu]) -> str | None:
    device = engine.settings.device
    missing = set(engine.place.gpus) - {gpu.index for gpu in gpus}
    if missing:
        have = f"this machine has {', '.join(f'gpu:{gpu.index}' for gpu in gpus)}" if gpus else "NVML finds none"
        return f"`device: {device}` names a GPU that is not here: {have}. Set `device: auto` to take what there is."
    if not engine.cores <= allowed:
        return f"`device: {device}` names cores that this process may not use; it may use {_shown(allowed)}."
    return None


def _twin_problem(engine: Resolved, earlier: Iterable[Resolved]) -> str | None:
    for other in earlier:
        if other.full_id == engine.full_id and other.precision != engine.precision:
            return (
                f"{other.settings.name!r} serves {engine.full_id} too, in {other.precision}, not {engine.precision}: "
                "replicas of one variant must be interchangeable. Give one of them a `variant` of its own."
            )
    return None


def _shown(cores: frozenset[int]) -> str:
    return ",".join(map(str, sorted(cores)))
