"""The facts of a checkpoint that metrics, tables and `/v1/models` show."""

from __future__ import annotations

from dataclasses import dataclass, field

from server.models.architecture import Architecture
from server.models.weight_bytes import WeightBytes
from server.units import Bytes

__all__ = ["ModelCard"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """Read from `config.json` and the headers of the safetensors files, without torch; None is unknown."""

    architecture: str | None
    precision: str
    """`bf16`, `fp16`, `fp32`, `fp8`, `int8`, `int4`, …"""
    dtype: str
    """The arithmetic's type as the checkpoint names it: `bfloat16`, …"""
    quantization: str
    """`none`, or the method: `compressed-tensors`, `gptq`, …"""
    scheme: str | None
    """Within the method: `int-quantized`, `pack-quantized group 128`, …"""
    parameters: int
    """Weights; scales, zero points and shapes are none, tied embeddings count once."""
    linear_parameters: int
    size_bytes: Bytes
    """All weight files."""
    bits_per_weight: float
    """8 · size_bytes / parameters."""
    linear_bits_per_weight: float | None
    """The same over the linear layers that quantization touches, scales and zero points included."""
    kv_bytes_per_token: Bytes | None
    max_position: int | None
    activation_bits: int | None = None
    """8 in W8A8; 16 where activations stay in `dtype`."""
    kv_bits: int | None = None
    """Of a number in the KV cache, if the checkpoint asks for a width of its own; else that of `dtype`."""
    shape: Architecture | None = field(default=None, repr=False)
    """None: a family that nobody described here, or one whose files do not hold what its configuration says."""
    weight_bytes: WeightBytes | None = field(default=None, repr=False)
    """None where the shape is."""
