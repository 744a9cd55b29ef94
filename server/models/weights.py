"""Turns tensors into layers: how many parameters, of what shape, in how many bytes.

Layouts of one linear layer with N outputs and K inputs, by the last part of the tensor's name:
    weight                 [N, K] in its own dtype (fp8 and int8 with `weight_scale` beside it)
    weight_packed          int32 [N, K/8] for 4 bits, with `weight_shape` = (N, K); uint8 [N, K/2] for NVFP4, MXFP4
    qweight                int32, GPTQ [K·bits/32, N], AWQ [K, N·bits/32]
    weight, uint8          two 4-bit values a byte: [N, K/2] (ModelOpt) or flat [N·K/2, 1] (bitsandbytes)
    …_blocks               uint8, two 4-bit values a byte (gpt-oss)
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from server.errors import CheckpointError
from server.models.safetensors_file import DTYPE_BITS, Tensor, read_int64s

__all__ = ["Layer", "LayerKind", "Storage", "read_layers"]


class LayerKind(StrEnum):
    """What a layer is to the counts."""

    LINEAR = "linear"
    EMBEDDING = "embedding"
    HEAD = "head"
    OTHER = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class Storage:
    """What the tensors' names alone do not say."""

    weight_bits: int | None
    """None: nothing is packed."""
    packed_along_outputs: bool
    """AWQ packs the outputs, everyone else the inputs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One weight and what belongs to it."""

    name: str
    kind: LayerKind
    parameters: int
    bias_parameters: int
    shape: tuple[int, int] | None
    """(outputs, inputs); None if it is no matrix or the file does not say."""
    weight_bytes: int
    """Weight, scales, zero points and shape; without the bias."""
    packed: bool
    """Stored in words that hold several weights."""


_PACKED: Final = ("weight_packed", "qweight", "blocks")
_SCALES: Final = frozenset({
    "weight_scale", "weight_scale_inv", "weight_scale_2", "weight_global_scale", "weight_zero_point", "weight_g_idx",
    "weight_shape", "input_scale", "input_zero_point", "input_global_scale", "output_scale", "activation_scale",
    "k_scale", "v_scale", "q_scale", "kv_scale", "k_zero_point", "v_zero_point", "SCB", "weight_format",
})  # fmt: skip
_SCALES_OF_PACKED: Final = frozenset({"scales", "qzeros", "g_idx"})
_BUFFERS: Final = frozenset({"inv_freq", "masked_bias", "position_ids"})
_EMBEDDINGS: Final = frozenset({
    "embed_tokens", "wte", "wpe", "word_embeddings", "embed_in", "tok_embeddings", "position_embeddings",
    "token_type_embeddings", "embed_positions", "shared",
})  # fmt: skip
_HEADS: Final = frozenset({"lm_head", "embed_out", "output", "score", "classifier"})
_LARGEST_SIDE: Final = 2**40


def read_layers(tensors: Iterable[Tensor], storage: Storage) -> Mapping[str, Layer]:
    """Every layer by its module's name; what is neither a weight nor a scale counts as bias of its module."""
    modules: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for tensor in tensors:
        module, leaf = _split(tensor)
        modules[module][leaf] = tensor
    return {name: _layer(name, leaves, storage) for name, leaves in modules.items()}


def _split(tensor: Tensor) -> tuple[str, str]:
    """The layer and the part of it; `x.weight.absmax` is part `weight.absmax` of `x` (bitsandbytes)."""
    name = tensor.name
    if ".weight." in name:
        module, _, rest = name.partition(".weight.")
        return module, f"weight.{rest}"
    module, _, leaf = name.rpartition(".")
    for part in ("blocks", "scales"):
        if leaf.endswith(f"_{part}"):
            return f"{module}.{leaf.removesuffix(f'_{part}')}", part
    if len(tensor.shape) == 3 and module.endswith(".experts"):
        return name, "weight"  # all experts of a layer in one tensor: experts.gate_up_proj [E, …, …]
    return module, leaf


def _layer(name: str, leaves: Mapping[str, Tensor], storage: Storage) -> Layer:
    main = next((leaf for leaf in (*_PACKED, "weight") if leaf in leaves), None)
    scales = [leaf for leaf in leaves if leaf != main and _is_scale(leaf, main)]
    others = [leaf for leaf in leaves if leaf != main and leaf not in scales and leaf not in _BUFFERS]
    rest = sum(leaves[leaf].elements for leaf in others)
    if main is None:
        return Layer(
            name=name,
            kind=LayerKind.OTHER,
            parameters=0,
            bias_parameters=rest,
            shape=None,
            weight_bytes=0,
            packed=False,
        )
    weight = leaves[main]
    halves = main == "weight" and weight.dtype == "U8" and storage.weight_bits == 4 and bool(scales)
    packed = main in _PACKED or halves
    parameters, shape = _measure(leaves, "halves" if halves else main, storage)
    return Layer(
        name=name,
        kind=_kind(name, weight, packed=packed),
        parameters=parameters,
        bias_parameters=rest,
        shape=shape,
        weight_bytes=weight.size_bytes + sum(leaves[leaf].size_bytes for leaf in scales),
        packed=packed,
    )


def _is_scale(leaf: str, main: str | None) -> bool:
    return leaf in _SCALES or leaf.startswith("weight.") or (main in _PACKED and leaf in _SCALES_OF_PACKED)


def _kind(name: str, weight: Tensor, *, packed: bool) -> LayerKind:
    last = name.rpartition(".")[2]
    if last in _EMBEDDINGS:
        return LayerKind.EMBEDDING
    if packed:
        return LayerKind.LINEAR
    if last in _HEADS:
        return LayerKind.HEAD
    experts = len(weight.shape) == 3 and ".experts" in name
    return LayerKind.LINEAR if len(weight.shape) == 2 or experts else LayerKind.OTHER


def _measure(leaves: Mapping[str, Tensor], layout: str, storage: Storage) -> tuple[int, tuple[int, int] | None]:
    """Parameters, and (outputs, inputs) where the layout tells."""
    if layout == "weight":
        shape = leaves["weight"].shape
        return math.prod(shape), (shape[0], shape[1]) if len(shape) == 2 else None
    tensor = leaves["weight" if layout == "halves" else layout]
    if layout == "weight_packed" and "weight_shape" in leaves and len(tensor.shape) == 2:
        outputs, inputs = _declared_shape(leaves["weight_shape"], tensor)
        return outputs * inputs, (outputs, inputs)
    bits = storage.weight_bits or 4
    word = DTYPE_BITS[tensor.dtype]
    return tensor.elements * word // bits, _unpacked_shape(
        tensor, layout, bits, along_outputs=storage.packed_along_outputs
    )


def _declared_shape(tensor: Tensor, packed: Tensor) -> tuple[int, int]:
    sides = read_int64s(tensor)
    fits = len(sides) == 2 and sides[0] == packed.shape[0] and packed.shape[1] <= sides[1] < _LARGEST_SIDE
    if not fits:
        raise CheckpointError(
            f"{tensor.path}: tensor {tensor.name!r} says {list(sides)}, which does not fit the packed weight "
            f"of shape {list(packed.shape)}. Quantize or download the checkpoint again."
        )
    return sides[0], sides[1]


def _unpacked_shape(tensor: Tensor, layout: str, bits: int, *, along_outputs: bool) -> tuple[int, int] | None:
    if len(tensor.shape) != 2 or (layout == "halves" and tensor.shape[1] == 1):
        return None
    rows, columns = tensor.shape
    word = DTYPE_BITS[tensor.dtype]
    if layout != "qweight":
        return rows, columns * word // bits
    return (columns * word // bits, rows) if along_outputs else (columns, rows * word // bits)
