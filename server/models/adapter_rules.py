"""Which adapters vLLM cannot load, and what would work.

Sources: tried with vLLM 0.32 (W8A8 on the CPU, DoRA), else read in its `lora/peft_helper.py` and `lora/utils.py`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from server.models.adapter import LORA_KINDS, PLAIN_INIT, AdapterCard, AdapterLayer
from server.models.adapter_kinds import instead_of_kind
from server.models.card import ModelCard
from server.models.checkpoint import Checkpoint
from server.models.device import DeviceFacts
from server.models.rule import Finding, Rule

__all__ = ["AdapterCase"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterCase:
    """An adapter that is to be loaded on an engine."""

    adapter: AdapterCard
    card: ModelCard | None
    """None: the engine runs elsewhere."""
    checkpoint: Checkpoint | None
    """None: layer shapes are unknown."""
    max_rank: int | None
    """None: the engine takes no adapters."""
    device: DeviceFacts | None


_MERGE: Final = (
    "merge it into the base model (`merge_and_unload`), quantize the result if you like, and serve that as a variant."
)
_SERVED_INITS: Final = frozenset({PLAIN_INIT, "gaussian", "eva", "orthogonal", "mica", "lora_ga"})
"""Starts that leave the base model's weights alone."""
_SAVED_WHOLE: Final = frozenset({"classifier", "score"})
_FIRST: Final = 3


def _kind(case: AdapterCase) -> Finding | None:
    kind = case.adapter.kind
    if kind in LORA_KINDS:
        return None
    return Finding(found=f"an adapter of kind {kind}", instead=instead_of_kind(kind))


def _dora(case: AdapterCase) -> Finding | None:
    return Finding(found="`use_dora: true`") if case.adapter.kind == "dora" else None


def _init(case: AdapterCase) -> Finding | None:
    init = case.adapter.init
    return Finding(found=f"`init_lora_weights: {init}`") if init not in _SERVED_INITS else None


def _modules_to_save(case: AdapterCase) -> Finding | None:
    refused = [name for name in case.adapter.modules_to_save if name not in _SAVED_WHOLE]
    return Finding(found=f"`modules_to_save: [{_some(refused)}]`") if refused else None


def _feature(case: AdapterCase) -> Finding | None:
    features = case.adapter.features
    return Finding(found=_some([f"`{name}`" for name in features])) if features else None


def _tensors(case: AdapterCase) -> Finding | None:
    saved = _SAVED_WHOLE & set(case.adapter.modules_to_save)
    foreign = [name for name in case.adapter.foreign_tensors if name.rsplit(".", 2)[-2:-1] not in ([s] for s in saved)]
    return Finding(found=f"{len(foreign)} other tensor(s): {_some(foreign)}") if foreign else None


def _cpu_w8a8(case: AdapterCase) -> Finding | None:
    if case.device is None or case.card is None or case.device.kind != "cpu" or case.card.precision != "int8":
        return None
    return Finding(found=f"a base model in {case.card.scheme or case.card.precision}")


def _off(case: AdapterCase) -> Finding | None:
    if case.max_rank is not None:
        return None
    rank = f" with `max_rank` of at least {case.adapter.rank}" if case.adapter.rank else ""
    return Finding(
        found="no `adapters:` section", instead=f"give the engine an `adapters:` section{rank} and start it again."
    )


def _rank(case: AdapterCase) -> Finding | None:
    rank, limit = case.adapter.rank, case.max_rank
    if rank is None or limit is None or rank <= limit:
        return None
    return Finding(
        found=f"rank {rank}, the engine's limit is {limit}",
        instead=f"set the engine's `adapters.max_rank` to at least {rank} and start it again.",
    )


def _base(case: AdapterCase) -> Finding | None:
    if case.checkpoint is None or case.card is None:
        return None
    shapes = _shapes_by_tail(case.checkpoint)
    odd = [said for layer in case.adapter.layers if (said := _misfit(layer, shapes, tied=case.checkpoint.tied))]
    if not odd:
        return None
    trained_on = f"; it was trained on {case.adapter.base_model}" if case.adapter.base_model else ""
    return Finding(
        found=f"{len(odd)} of {len(case.adapter.layers)} layers do not fit, the first is {odd[0]}{trained_on}"
    )


def _misfit(layer: AdapterLayer, shapes: Mapping[str, list[tuple[int, int] | None]], *, tied: bool) -> str | None:
    """What is wrong with this layer; None if it fits, or nobody can tell."""
    tail = _tail(layer.name)
    if ".experts" in layer.name or (tail == "lm_head" and tied):
        return None
    wanted = (layer.d_out, layer.d_in)
    found = shapes.get(tail)
    if found is None:
        return f"{layer.name}, which the base model does not have"
    # GPT-2 stores its matrices as (in, out), so either orientation is a fit.
    if any(shape is None or shape in {wanted, wanted[::-1]} for shape in found):
        return None
    return f"{layer.name}: the adapter is for (out, in) = {wanted}, the base model has {found[0]}"


def _shapes_by_tail(checkpoint: Checkpoint) -> Mapping[str, list[tuple[int, int] | None]]:
    """Shapes by the part of the name that wrappers leave alone; several layers may share it."""
    shapes: dict[str, list[tuple[int, int] | None]] = defaultdict(list)
    for layer in checkpoint.layers.values():
        shapes[_tail(layer.name)].append(layer.shape)
    return shapes


def _tail(name: str) -> str:
    """`language_model.model.layers.3.mlp.up_proj` and `model.layers.3.mlp.up_proj` are one layer."""
    inside = name.partition("layers.")[2]
    return inside or name.rpartition(".")[2]


def _some(names: list[str] | tuple[str, ...]) -> str:
    return ", ".join(names[:_FIRST]) + (", …" if len(names) > _FIRST else "")


KIND: Final = Rule(
    sentence="vLLM loads LoRA adapters only.",
    instead=_MERGE,
    find=_kind,
)
DORA: Final = Rule(
    sentence="vLLM does not support DoRA.",
    instead=_MERGE,
    find=_dora,
)
INIT: Final = Rule(
    sentence="This adapter's start changed the base model's weights (PiSSA, OLoRA, LoftQ, CorDA do), "
    "so on the original base it means something else, and vLLM refuses it.",
    instead="save it again with PEFT's `path_initial_model_for_weight_conversion`, which makes it a plain LoRA.",
    find=_init,
)
MODULES_TO_SAVE: Final = Rule(
    sentence="vLLM replaces no whole layers but a classification head (`classifier`, `score`).",
    instead=_MERGE,
    find=_modules_to_save,
)
FEATURE: Final = Rule(
    sentence="The adapter uses features of PEFT that vLLM does not implement.",
    instead="train it without them, or merge it into the base model and serve that as a variant.",
    find=_feature,
)
TENSORS: Final = Rule(
    sentence="vLLM loads the matrices lora_A and lora_B and refuses an adapter file with anything else in it.",
    instead="save it again with PEFT's `save_pretrained`, without trained tokens or extra layers, or merge it.",
    find=_tensors,
)
CPU_W8A8: Final = Rule(
    sentence="A W8A8 engine on the CPU cannot take adapters: it dies.",
    instead="load it on the bf16, fp16 or int4 variant, or merge it into the base model and quantize the result.",
    find=_cpu_w8a8,
)
OFF: Final = Rule(
    sentence="This engine was not started to take adapters.",
    instead="give the engine an `adapters:` section and start it again.",
    find=_off,
)
RANK: Final = Rule(
    sentence="The adapter's rank is over the engine's limit.",
    instead="raise the engine's `adapters.max_rank` and start it again.",
    find=_rank,
)
BASE: Final = Rule(
    sentence="The adapter belongs to another base model.",
    instead="load it on the model it was trained on.",
    find=_base,
)
