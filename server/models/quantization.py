"""How a checkpoint's weights are stored, from its `quantization_config`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from server.models.document import Document

__all__ = ["UNQUANTIZED_BITS", "Quantization", "read_quantization"]

UNQUANTIZED_BITS: Final = 16
"""Bits of activations that nothing quantizes: they stay in the model's dtype."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantization:
    """One way of storing weights; None is unknown."""

    method: str
    """`compressed-tensors`, `gptq`, `awq`, …"""
    precision: str | None
    """`int8`, `int4`, `fp8`, `nvfp4`, `mixed`, …; None: the weights are not quantized (only the KV cache is)."""
    weight_bits: int | None
    activation_bits: int | None
    """16 where only the weights are quantized."""
    group_size: int | None = None
    format: str | None = None
    """The method's own name of its layout."""
    kv_cache_bits: int | None = None
    """What the checkpoint asks of the KV cache; None: the model's dtype."""
    sparse: bool = False
    """Some weights are left out of the file (2:4 structure)."""

    @property
    def scheme(self) -> str | None:
        """For people: `pack-quantized W4A16 group 128`."""
        width = None
        if self.weight_bits is not None and self.activation_bits is not None:
            width = f"W{self.weight_bits}A{self.activation_bits}"
        group = f"group {self.group_size}" if self.group_size else None
        return " ".join(part for part in (self.format, width, group) if part) or None


def read_quantization(config: Document) -> Quantization | None:
    """None if the checkpoint names no quantization. Raises `CheckpointError` if it does so in a broken way."""
    section = config.child("quantization_config") or config.child("compression_config")
    if section is None:
        return None
    method = section.text("quant_method") or ("modelopt" if "quant_algo" in section else "compressed-tensors")
    return _READERS.get(method, _other)(section, method)


def _compressed_tensors(section: Document, method: str) -> Quantization:
    """`config_groups` holds one scheme a group of layers; groups of different widths make it `mixed`."""
    groups = section.child("config_groups")
    layout = section.text("format")
    found = {
        _group(group, layout) for key in (groups.keys() if groups else ()) if groups and (group := groups.child(key))
    }
    schemes = {scheme for scheme in found if scheme is not None}
    kv_cache = section.child("kv_cache_scheme")
    sparsity = section.child("sparsity_config")
    uniform = next(iter(schemes)) if len(schemes) == 1 else (None, None, None, None)
    precision, weight_bits, activation_bits, group_size = uniform
    return Quantization(
        method=method,
        precision="mixed" if len(schemes) > 1 else precision,
        weight_bits=weight_bits,
        activation_bits=activation_bits,
        group_size=group_size,
        format=layout,
        kv_cache_bits=kv_cache.integer("num_bits", least=1) if kv_cache else None,
        sparse=sparsity is not None and bool(sparsity.raw("targets") or sparsity.raw("sparsity_structure") == "2:4"),
    )


def _group(group: Document, layout: str | None) -> tuple[str, int, int, int | None] | None:
    """Precision, weight bits, activation bits, group size; None for a group that leaves its weights alone."""
    weights = group.child("weights")
    if weights is None:
        return None
    bits = _bits(weights, "num_bits") or 8
    activations = group.child("input_activations")
    activation_bits = (_bits(activations, "num_bits") or 8) if activations else UNQUANTIZED_BITS
    group_size = weights.raw("group_size")  # -1: one group a row
    size = group_size if isinstance(group_size, int) and group_size > 0 else None
    layout = group.text("format") or layout or ""
    kind = "int" if weights.text("type") in {None, "int"} else "fp"
    prefix = next((name for name in ("nvfp", "mxfp") if kind == "fp" and layout.startswith(name)), kind)
    return f"{prefix}{bits}", bits, activation_bits, size


def _gptq_or_awq(section: Document, method: str) -> Quantization:
    bits = _bits(section, "bits") or _bits(section, "w_bit") or 4
    size = section.raw("group_size") or section.raw("q_group_size")
    return Quantization(
        method=method,
        precision=f"int{bits}",
        weight_bits=bits,
        activation_bits=UNQUANTIZED_BITS,
        group_size=size if isinstance(size, int) and size > 0 else None,
    )


def _fp8(section: Document, method: str) -> Quantization:
    block = section.raw("weight_block_size")
    blocks = block if isinstance(block, list) and all(isinstance(side, int) for side in block) else None
    return Quantization(
        method=method,
        precision="fp8",
        weight_bits=8,
        activation_bits=8,
        format="block " + "x".join(str(side) for side in blocks) if blocks else None,
    )


def _bitsandbytes(section: Document, method: str) -> Quantization:
    if section.flag("load_in_8bit"):
        # LLM.int8() computes outliers in 16 bits: neither W8A8 nor W8A16.
        return Quantization(method=method, precision="int8", weight_bits=8, activation_bits=None)
    return Quantization(
        method=method,
        precision=section.text("bnb_4bit_quant_type") or "fp4",
        weight_bits=4,
        activation_bits=UNQUANTIZED_BITS,
    )


def _mxfp4(section: Document, method: str) -> Quantization:  # noqa: ARG001  # one signature for all readers
    return Quantization(
        method=method, precision="mxfp4", weight_bits=4, activation_bits=UNQUANTIZED_BITS, group_size=32
    )


def _modelopt(section: Document, method: str) -> Quantization:
    algorithm = (section.text("quant_algo") or "").upper()
    bits = 4 if "4" in algorithm else 8
    known = {"FP8": "fp8", "NVFP4": "nvfp4", "MXFP8": "mxfp8"}
    return Quantization(
        method=method,
        precision=known.get(algorithm, algorithm.lower() or method),
        weight_bits=bits if algorithm in known else None,
        activation_bits=bits if algorithm in known else None,
        format=algorithm or None,
    )


def _other(section: Document, method: str) -> Quantization:
    bits = _bits(section, "bits") or _bits(section, "nbits")
    return Quantization(
        method=method, precision=f"int{bits}" if bits else method, weight_bits=bits, activation_bits=None
    )


def _bits(section: Document, key: str) -> int | None:
    bits = section.integer(key, least=1)
    if bits is not None and bits > UNQUANTIZED_BITS:
        raise section.wrong(key, f"a width of 1 to {UNQUANTIZED_BITS} bits")
    return bits


_READERS: Final[Mapping[str, Callable[[Document, str], Quantization]]] = {
    "compressed-tensors": _compressed_tensors,
    "gptq": _gptq_or_awq,
    "gptq_marlin": _gptq_or_awq,
    "awq": _gptq_or_awq,
    "awq_marlin": _gptq_or_awq,
    "fp8": _fp8,
    "fbgemm_fp8": _fp8,
    "bitsandbytes": _bitsandbytes,
    "mxfp4": _mxfp4,
    "modelopt": _modelopt,
    "modelopt_fp4": _modelopt,
}
