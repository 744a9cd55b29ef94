"""Reads a checkpoint's folder: configuration and tensor headers, no torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from server.errors import CheckpointError
from server.models.architecture import Architecture
from server.models.card import ModelCard
from server.models.document import Document, read_document
from server.models.families import read_architecture
from server.models.kv_cache import kv_bytes, kv_values_per_token
from server.models.quantization import UNQUANTIZED_BITS, Quantization, read_quantization
from server.models.safetensors_file import Shard, Tensor, read_shard
from server.models.weight_bytes import read_weight_bytes
from server.models.weights import Layer, LayerKind, Storage, read_layers
from server.units import Bytes

__all__ = ["Checkpoint", "read_card", "read_checkpoint"]

_INDEX: Final = "model.safetensors.index.json"
_DTYPES: Final[Mapping[str, tuple[str, int]]] = {
    "bfloat16": ("bf16", 16),
    "float16": ("fp16", 16),
    "half": ("fp16", 16),
    "float32": ("fp32", 32),
    "float": ("fp32", 32),
    "float64": ("fp64", 64),
}
"""The dtype's name in `config.json` → the precision's, and its bits."""
_STORED: Final[Mapping[str, str]] = {"BF16": "bfloat16", "F16": "float16", "F32": "float32", "F64": "float64"}

_HELD: Final = (0.98, 1.15)
"""Parameters in the files over those of the formula: DeepSeek V3 adds 2 % for multi-token prediction, GPT-2's first
files 10 % for the causal mask; less would be another model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """What the rules need beyond the card: each layer's shape."""

    folder: Path
    card: ModelCard
    layers: Mapping[str, Layer]
    """By module name: `model.layers.0.mlp.up_proj`."""
    tied: bool
    """The output head is the embedding's weight."""
    sparse: bool
    """Some weights are left out of the file (2:4 structure)."""


def read_card(checkpoint: Path) -> ModelCard:
    """The facts of a checkpoint's folder; reads headers only, milliseconds for most models.

    Raises `CheckpointError`, which names file and key, if anything is missing or broken.
    """
    return read_checkpoint(checkpoint).card


def read_checkpoint(folder: Path) -> Checkpoint:
    """The same with every layer's shape. Raises `CheckpointError` like `read_card`."""
    config = _read_config(folder)
    quantization = read_quantization(config)
    shards = _read_shards(folder)
    tensors = [tensor for shard in shards for tensor in shard.tensors.values()]
    layers = read_layers(
        tensors,
        Storage(
            weight_bits=quantization.weight_bits if quantization else None,
            packed_along_outputs=quantization is not None and quantization.method.startswith("awq"),
        ),
    )
    tied = _is_tied(config)
    size = Bytes(sum(shard.size_bytes for shard in shards))
    card = _card(config, quantization, _Weights(layers, tied, size), _dtype(config, tensors))
    if card is None:
        raise CheckpointError(
            f"{folder}: its safetensors files hold no weights. Export or download the checkpoint again."
        )
    return Checkpoint(
        folder=folder,
        card=card,
        layers=layers,
        tied=tied,
        sparse=quantization is not None and quantization.sparse,
    )


class _Weights:
    """The sums over all layers."""

    def __init__(self, layers: Mapping[str, Layer], tied: bool, size: Bytes) -> None:
        linears = [layer for layer in layers.values() if layer.kind is LayerKind.LINEAR]
        self.layers = layers
        self.size = size
        self.parameters = sum(layer.parameters + layer.bias_parameters for layer in layers.values())
        self.parameters -= _counted_twice(layers.values()) if tied else 0
        self.linear_parameters = sum(layer.parameters for layer in linears)
        self.linear_bytes = sum(layer.weight_bytes for layer in linears)


def _card(
    config: Document, quantization: Quantization | None, weights: _Weights, dtype: str | None
) -> ModelCard | None:
    if weights.parameters <= 0:
        return None
    text = config.child("text_config") or config
    architecture = next(iter(config.texts("architectures") or ()), None)
    precision, bits = _DTYPES.get(dtype or "", (dtype or "unknown", None))
    kv_bits = (quantization.kv_cache_bits if quantization else None) or bits
    quantized = quantization is not None and quantization.precision is not None
    shape = _shape(config, weights)
    return ModelCard(
        architecture=architecture,
        precision=(quantization.precision if quantization else None) or precision,
        dtype=dtype or "unknown",
        quantization=quantization.method if quantization and quantized else "none",
        scheme=quantization.scheme if quantization and quantized else None,
        activation_bits=quantization.activation_bits if quantization and quantized else UNQUANTIZED_BITS,
        parameters=weights.parameters,
        linear_parameters=weights.linear_parameters,
        size_bytes=weights.size,
        bits_per_weight=8 * weights.size / weights.parameters,
        linear_bits_per_weight=8 * weights.linear_bytes / weights.linear_parameters
        if weights.linear_parameters
        else None,
        kv_bytes_per_token=kv_bytes(kv_values_per_token(config, architecture), kv_bits),
        max_position=text.integer("max_position_embeddings", least=1) or text.integer("n_positions", least=1),
        kv_bits=quantization.kv_cache_bits if quantization else None,
        shape=shape,
        weight_bytes=read_weight_bytes(weights.layers, weights.size, shape) if shape else None,
    )


def _shape(config: Document, weights: _Weights) -> Architecture | None:
    """The architecture, if the files hold about as many parameters as it says."""
    shape = read_architecture(config)
    least, most = _HELD
    return shape if shape and least <= weights.parameters / shape.total_parameters <= most else None


def _read_config(folder: Path) -> Document:
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "there is no such folder"
        raise CheckpointError(f"{folder}: {what}. Give the checkpoint's folder, the one with config.json.")
    path = folder / "config.json"
    if path.is_file():
        return read_document(path)
    if (folder / "adapter_config.json").is_file():
        raise CheckpointError(
            f"{folder}: is an adapter, not a checkpoint. List it under `adapters:`, with its base model."
        )
    raise CheckpointError(f"{path}: there is no such file. Give a folder in the Hugging Face layout.")


def _read_shards(folder: Path) -> list[Shard]:
    """The files that make up the model: those of the index, else the one file, else whatever is there."""
    if (folder / _INDEX).is_file():
        return _read_index(folder)
    single = folder / "model.safetensors"
    others = sorted(path for path in folder.glob("*.safetensors") if path.name != "adapter_model.safetensors")
    # Mistral ships the same weights a second time as consolidated.safetensors.
    plain = [path for path in others if not path.name.startswith("consolidated")]
    paths = [single] if single.is_file() else plain or others
    if paths:
        return [read_shard(path) for path in paths]
    pickled = any(folder.glob("*.bin")) or any(folder.glob("*.pt"))
    hint = "Convert its pickled weights to safetensors." if pickled else "Download or export the checkpoint again."
    raise CheckpointError(f"{folder}: holds no safetensors file. {hint}")


def _read_index(folder: Path) -> list[Shard]:
    index = read_document(folder / _INDEX)
    weight_map = index.child("weight_map")
    if weight_map is None or not weight_map.keys():
        raise CheckpointError(f"{index.path}: has no `weight_map`. Export or download the checkpoint again.")
    places = {name: _shard_name(weight_map, name) for name in weight_map.keys()}  # noqa: SIM118  # not a dict
    names = sorted(set(places.values()))
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise CheckpointError(
            f"{index.path}: {len(missing)} of {len(names)} weight files are missing: {', '.join(missing[:5])}"
            f"{' …' if len(missing) > 5 else ''}. Download or copy the checkpoint again."
        )
    shards = {name: read_shard(folder / name) for name in names}
    for tensor, name in places.items():
        if tensor not in shards[name].tensors:
            raise CheckpointError(
                f"{index.path}: says that {name} holds {tensor!r}, which it does not. Download both again."
            )
    return list(shards.values())


def _shard_name(weight_map: Document, tensor: str) -> str:
    name = weight_map.text(tensor)
    if name is None or "/" in name or "\\" in name or "\0" in name or not name.endswith(".safetensors"):
        raise weight_map.wrong(tensor, "a safetensors file beside the index")
    return name


def _is_tied(config: Document) -> bool:
    text = config.child("text_config")
    inner = text.flag("tie_word_embeddings") if text else None
    return bool(config.flag("tie_word_embeddings") if inner is None else inner)


def _counted_twice(layers: Iterable[Layer]) -> int:
    """The head's parameters, if the file holds the tied weight twice."""
    layers = list(layers)
    embeddings = {layer.shape for layer in layers if layer.kind is LayerKind.EMBEDDING and layer.shape is not None}
    heads = (layer for layer in layers if layer.kind is LayerKind.HEAD and layer.shape in embeddings)
    return next((head.parameters for head in heads), 0)


def _dtype(config: Document, tensors: Iterable[Tensor]) -> str | None:
    """What the configuration names; else the floating-point type that most weights have."""
    text = config.child("text_config")
    sections = (config,) if text is None else (config, text)
    named = next((name for key in ("dtype", "torch_dtype") for part in sections if (name := part.text(key))), None)
    if named is not None and named != "auto":
        return named.removeprefix("torch.")
    stored: Counter[str] = Counter()
    for tensor in tensors:
        if tensor.dtype in _STORED:
            stored[_STORED[tensor.dtype]] += tensor.elements
    return stored.most_common(1)[0][0] if stored else None
