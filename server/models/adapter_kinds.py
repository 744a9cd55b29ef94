"""Every kind of adapter that PEFT makes, and its way into an engine.

Tried kind by kind with PEFT 0.21 on a Llama; vLLM itself loads plain LoRA only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

__all__ = ["ADAPTER_KINDS", "FEATURE_WAYS", "AdapterKind", "Way", "instead_of_kind"]


class Way(StrEnum):
    """What has to happen to an adapter before an engine can serve it."""

    SERVE = "serve"
    """Nothing: the engine loads it as it is."""
    CONVERT = "convert"
    """Its change of the weights is written as a LoRA; what that loses is measured."""
    MERGE = "merge"
    """It becomes a variant: base weights with the change in them, to be quantized or served."""
    REFUSE = "refuse"
    """No engine can do what it does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterKind:
    """One of PEFT's `peft_type`s."""

    way: Way
    about: str
    """What it does to the base model, as a clause: why this is the way."""


def _serve(about: str) -> AdapterKind:
    return AdapterKind(way=Way.SERVE, about=about)


def _convert(about: str) -> AdapterKind:
    return AdapterKind(way=Way.CONVERT, about=about)


def _merge(about: str) -> AdapterKind:
    return AdapterKind(way=Way.MERGE, about=about)


def _refuse(about: str) -> AdapterKind:
    return AdapterKind(way=Way.REFUSE, about=about)


ADAPTER_KINDS: Final[Mapping[str, AdapterKind]] = {
    "lora": _serve("adds B·A of a low rank to the weights"),
    "rslora": _serve("adds B·A of a low rank to the weights, scaled by alpha / √rank"),
    "adalora": _convert("adds P·Λ·Q of a low rank to the weights"),
    "c3a": _convert("adds block-circulant matrices to the weights"),
    "delora": _convert("adds a normalized B·A to the weights"),
    "fourierft": _convert("adds a matrix with few Fourier coefficients to the weights"),
    "gralora": _convert("adds a B·A per block to the weights"),
    "loha": _convert("adds the Hadamard product of two low-rank matrices to the weights"),
    "lokr": _convert("adds a Kronecker product to the weights"),
    "miss": _convert("adds one block, repeated over the inputs, to the weights"),
    "psoft": _convert("turns a low-rank part of the weights"),
    "randlora": _convert("adds scaled random low-rank matrices to the weights"),
    "tinylora": _convert("adds a few numbers times fixed low-rank matrices to the weights"),
    "unilora": _convert("adds a B·A to the weights that is read from one shared vector"),
    "vblora": _convert("adds a B·A to the weights that is mixed from a vector bank"),
    "vera": _convert("adds scaled random low-rank matrices, shared by all layers, to the weights"),
    "waveft": _convert("adds a matrix with few wavelet coefficients to the weights"),
    "adamss": _merge("changes subspaces of the weights"),
    "boft": _merge("turns the weights by butterfly factors"),
    "deft": _merge("replaces a subspace of the weights"),
    "dora": _merge("changes direction and length of the weights' rows"),
    "frod": _merge("changes the weights in a basis shared by all layers"),
    "glora": _merge("scales and shifts the weights"),
    "hira": _merge("multiplies the weights by a low-rank matrix, entry by entry"),
    "hra": _merge("reflects the weights"),
    "ia3": _merge("scales rows or columns of the weights"),
    "ln_tuning": _merge("trains normalization layers"),
    "oft": _merge("turns the weights by orthogonal blocks"),
    "osf": _merge("trains the weights outside their strongest directions"),
    "peanut": _merge("adds a small network's output, computed from the weights, to the weights"),
    "pvera": _merge("adds scaled random low-rank matrices with a variance to the weights"),
    "road": _merge("turns pairs of a layer's outputs"),
    "shira": _merge("changes few single entries of the weights"),
    "supertuning": _merge("changes few single entries of the weights"),
    "trainable_tokens": _merge("changes rows of the embedding"),
    "adaption_prompt": _refuse("adds gated attention to learned tokens inside the attention layers"),
    "beft": _refuse("trains biases, which a Llama's projections do not have"),
    "cartridge": _refuse("puts a learned KV cache in front of every request"),
    "cpt": _refuse("puts learned embeddings in front of every prompt"),
    "lily": _refuse("mixes shared experts by each input"),
    "multitask_prompt_tuning": _refuse("puts learned embeddings, chosen by a task, in front of every prompt"),
    "p_tuning": _refuse("puts learned embeddings in front of every prompt"),
    "poly": _refuse("mixes adapters by a task that each request would have to name"),
    "prefix_tuning": _refuse("puts learned keys and values in front of every layer's"),
    "prompt_tuning": _refuse("puts learned embeddings in front of every prompt"),
    "shadow": _refuse("runs a second, smaller model beside the base model"),
    "xlora": _refuse("mixes several LoRAs by each input"),
}

FEATURE_WAYS: Final[Mapping[str, Way]] = {
    "alora_invocation_tokens": Way.REFUSE,  # works from a token of the prompt on
    "arrow_config": Way.REFUSE,  # chooses among LoRAs by each input
    "layer_replication": Way.REFUSE,  # another architecture
    "lora_bias": Way.REFUSE,  # merges only into layers that have a bias, which most have not
}
"""The way of a LoRA with a feature that vLLM has not; what is not named here can be merged."""

_EMBEDDED: Final = frozenset({"cpt", "p_tuning", "prompt_tuning"})
_INSTEAD: Final[Mapping[Way, str]] = {
    Way.SERVE: "load it as it is.",
    Way.CONVERT: (
        "convert it with `wattgate quant adapter convert`, which measures what that loses, or merge it into the base "
        "model (`wattgate quant adapter merge`), quantize the result if you like, and serve that as a variant."
    ),
    Way.MERGE: (
        "merge it into the base model (`wattgate quant adapter merge`), quantize the result if you like, "
        "and serve that as a variant."
    ),
    Way.REFUSE: "train a LoRA on the same data (`wattgate quant tune`).",
}


def instead_of_kind(kind: str) -> str:
    """What would work in place of serving an adapter of this kind; a clause that ends with a full stop."""
    if kind in _EMBEDDED:
        return (
            f"send the learned prompt as prompt embeddings (vLLM's `enable_prompt_embeds`), or {_INSTEAD[Way.REFUSE]}"
        )
    known = ADAPTER_KINDS.get(kind)
    if known is None:
        return f"merge it into the base model if PEFT can (`merge_and_unload`), or {_INSTEAD[Way.REFUSE]}"
    if known.way is Way.REFUSE:
        return f"{_INSTEAD[known.way][:-1]}: {kind.replace('_', ' ')} has no way into vLLM."
    return _INSTEAD[known.way]
