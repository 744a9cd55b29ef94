"""Reads an adapter's folder: what kind it is, of what rank, for which layers.

Served weight = W + (alpha / rank) · B @ A; W (d_out, d_in), B (d_out, rank), A (rank, d_in); with rsLoRA alpha / √rank.
Sources: LoRA, arXiv 2106.09685; rsLoRA, arXiv 2312.03732.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from server.errors import CheckpointError
from server.models.document import Document, read_document
from server.models.safetensors_file import Shard, Tensor, read_shard
from server.units import Bytes

__all__ = ["LORA_KINDS", "AdapterCard", "AdapterLayer", "CheckpointError", "read_adapter"]

LORA_KINDS: Final = frozenset({"lora", "rslora", "dora"})
PLAIN_INIT: Final = "default"
_FEATURES: Final = (
    *("lora_bias", "alora_invocation_tokens", "layer_replication", "use_bdlora", "use_qalora"),
    *("arrow_config", "kasa_config", "monteclora_config"),
)
"""Keys of `adapter_config.json` that make LoRA mean something else; false or empty, they do nothing."""
_PREFIX: Final = "base_model.model."
_SIDES: Final[Mapping[str, str]] = {
    ".lora_A.weight": "A",
    ".lora_B.weight": "B",
    ".lora_embedding_A": "A",
    ".lora_embedding_B": "B",
}
_BASE_WEIGHT: Final = ".base_layer.weight"
"""The untouched embedding, saved beside the adapter when the vocabulary was resized."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterLayer:
    """One layer of the base model and the two matrices that change it."""

    name: str
    """The base model's module: `model.layers.0.self_attn.q_proj`."""
    rank: int
    d_in: int
    d_out: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterCard:
    """Read from `adapter_config.json` and the safetensors header, without torch; None is unknown."""

    kind: str
    """`lora`, `rslora`, `dora`, else PEFT's name: `lokr`, `ia3`, `prefix_tuning`, …"""
    rank: int | None
    """The largest of any layer; None for a kind that has none."""
    alpha: float | None
    target_modules: tuple[str, ...]
    modules_to_save: tuple[str, ...]
    """Layers replaced whole instead of adapted."""
    base_model: str | None
    init: str
    """`default`, or what the matrices started from: `pissa`, `olora`, `loftq`, `gaussian`, …"""
    size_bytes: Bytes
    parameters: int | None
    """None if the weights are pickled."""
    features: tuple[str, ...] = ()
    """What makes it more than plain LoRA: `lora_bias`, `bias`, `use_qalora`, …"""
    layers: tuple[AdapterLayer, ...] = field(default=(), repr=False)
    foreign_tensors: tuple[str, ...] = field(default=(), repr=False)
    """Tensors that are no LoRA matrix."""


def read_adapter(path: Path) -> AdapterCard:
    """The facts of an adapter's folder. Raises `CheckpointError`, which names file and key, if anything is broken."""
    config = _read_config(path)
    kind = _kind(config)
    if kind in LORA_KINDS:
        _require_lora_keys(config)
    size, shard = _read_weights(path, empty=kind not in LORA_KINDS)
    tensors = tuple(shard.tensors.values()) if shard else ()
    layers, foreign = _lora_layers(tensors) if kind in LORA_KINDS else ((), ())
    return AdapterCard(
        kind=kind,
        rank=_rank(config, least=1 if kind in LORA_KINDS else 0),
        alpha=config.number("lora_alpha"),
        target_modules=config.texts("target_modules") or (),
        modules_to_save=config.texts("modules_to_save") or (),
        base_model=config.text("base_model_name_or_path"),
        init=_init(config),
        size_bytes=size,
        parameters=sum(t.elements for t in tensors if not t.name.endswith(_BASE_WEIGHT)) if shard else None,
        features=_features(config),
        layers=layers,
        foreign_tensors=foreign,
    )


def _read_config(folder: Path) -> Document:
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "there is no such folder"
        raise CheckpointError(f"{folder}: {what}. Give the adapter's folder, the one with adapter_config.json.")
    path = folder / "adapter_config.json"
    if path.is_file():
        return read_document(path)
    if (folder / "config.json").is_file():
        raise CheckpointError(f"{folder}: is a whole checkpoint, not an adapter. List it under `engines:`.")
    raise CheckpointError(f"{path}: there is no such file. Give a folder that PEFT's `save_pretrained` wrote.")


def _read_weights(folder: Path, *, empty: bool) -> tuple[Bytes, Shard | None]:
    """`empty`: a file without a tensor is no error (X-LoRA keeps its own elsewhere)."""
    path = folder / "adapter_model.safetensors"
    if path.is_file():
        shard = read_shard(path)
        if not shard.tensors and not empty:
            raise CheckpointError(f"{path}: holds no tensor. Save the adapter again.")
        return shard.size_bytes, shard
    pickled = next((file for name in ("bin", "pt") if (file := folder / f"adapter_model.{name}").is_file()), None)
    if pickled is None:
        raise CheckpointError(f"{path}: there is no such file. Save the adapter again with PEFT's `save_pretrained`.")
    return Bytes(pickled.stat().st_size), None


def _kind(config: Document) -> str:
    kind = config.text("peft_type")
    if kind is None and "r" not in config:
        raise CheckpointError(
            f"{config.path}: has no `peft_type`. Save the adapter again with PEFT's `save_pretrained`."
        )
    kind = (kind or "lora").lower()
    if kind != "lora":
        return kind
    if config.flag("use_dora"):
        return "dora"
    return "rslora" if config.flag("use_rslora") else "lora"


def _require_lora_keys(config: Document) -> None:
    absent = [key for key in ("r", "lora_alpha", "target_modules") if key not in config]
    if "target_parameters" in config and "target_modules" in absent:
        absent.remove("target_modules")
    if absent:
        keys = ", ".join(f"`{key}`" for key in absent)
        raise CheckpointError(f"{config.path}: has no {keys}. Save the adapter again with PEFT's `save_pretrained`.")


def _rank(config: Document, *, least: int) -> int | None:
    """The largest rank: `rank_pattern` sets it for single layers; OFT writes 0 for none."""
    ranks = [config.integer("r", least=least)]
    patterns = config.child("rank_pattern")
    if patterns is not None:
        ranks += [patterns.integer(key, least=1) for key in patterns.keys()]  # noqa: SIM118  # not a dict
    return max((rank for rank in ranks if rank), default=None)


def _init(config: Document) -> str:
    """PEFT writes true for the plain start, false for a random one, else a name."""
    value = config.raw("init_lora_weights")
    return value.lower() if isinstance(value, str) else PLAIN_INIT


def _features(config: Document) -> tuple[str, ...]:
    found = [key for key in _FEATURES if config.raw(key)]
    return (*found, "bias") if (config.text("bias") or "none") != "none" else tuple(found)


def _lora_layers(tensors: Iterable[Tensor]) -> tuple[tuple[AdapterLayer, ...], tuple[str, ...]]:
    """Pairs of A and B by layer, and the names of all tensors that are neither."""
    pairs: dict[str, dict[str, Tensor]] = defaultdict(dict)
    foreign = []
    for tensor in tensors:
        side = next((suffix for suffix in _SIDES if tensor.name.endswith(suffix)), None)
        if side is not None:
            pairs[tensor.name.removesuffix(side).removeprefix(_PREFIX)][_SIDES[side]] = tensor
        elif not tensor.name.endswith(_BASE_WEIGHT):
            foreign.append(tensor.name)
    layers = (_pair(name, sides) for name, sides in pairs.items())
    return tuple(layer for layer in layers if layer is not None), tuple(sorted(foreign))


def _pair(name: str, sides: Mapping[str, Tensor]) -> AdapterLayer | None:
    present = next(iter(sides.values()))
    if len(sides) != 2:
        raise CheckpointError(
            f"{present.path}: {present.name!r} has no partner (lora_A and lora_B). Save the adapter again."
        )
    a, b = sides["A"].shape, sides["B"].shape
    if len(a) != 2 or len(b) != 2:
        return None  # a convolution, or all experts in one tensor
    if a[0] != b[1]:
        raise CheckpointError(
            f"{present.path}: {name}: A {list(a)} and B {list(b)} have different ranks. Save the adapter again."
        )
    return AdapterLayer(name=name, rank=a[0], d_in=a[1], d_out=b[0])
