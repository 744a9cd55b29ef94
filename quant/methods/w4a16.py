"""4-bit integer weights in groups, 16-bit activations; layout `pack-quantized`.

On disk: `weight_packed` int32 (N, K/8): eight 4-bit values a word along K, the first in the lowest bits, each stored
as value + 8; `weight_scale` (N, K/group) in the weight's own type; `weight_shape` int64 (2,) = (N, K).
Source: compressed-tensors, compressors/quantized_compressors/pack_quantized.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import torch

from quant.errors import SchemeError
from quant.methods.method import Options
from quant.safetensors_file import TensorSpec

__all__ = ["W4A16"]

GROUP_SIZES: Final = (32, 64, 128)  # the sizes that every engine's kernel takes
_SMALLEST, _LARGEST = -8, 7
_VALUES_PER_WORD: Final = 8
_FULL_RANGE: Final = 7.5  # scale = max |w| / 7.5 is the customary start: half a step is cut at one end
_SHRINKS: Final = tuple(1.0 - 0.04 * step for step in range(11))  # 1.00 … 0.60 of that scale are tried


@dataclass(frozen=True, slots=True)
class W4A16:
    """Round to nearest; of eleven scales each group takes the one with the least squared error."""

    format: ClassVar[str] = "pack-quantized"
    group_size: int = 128

    @classmethod
    def from_options(cls, options: Options) -> W4A16:
        """Group size 32, 64 or 128 (the default)."""
        size = cls().group_size if options.group_size is None else options.group_size
        if size not in GROUP_SIZES:
            raise SchemeError(f"Group size {size} is not one that engines take. Choose one of: 32, 64, 128.")
        return cls(size)

    def layout(self, weight: TensorSpec) -> Mapping[str, TensorSpec]:
        outputs, inputs = weight.shape
        if inputs % self.group_size:
            fitting = [str(size) for size in GROUP_SIZES if inputs % size == 0]
            advice = f"Choose {' or '.join(fitting)}." if fitting else "Choose scheme w8a8-int8 instead."
            raise SchemeError(f"its {inputs} inputs do not divide into groups of {self.group_size}. {advice}")
        return {
            "weight_packed": TensorSpec("I32", (outputs, inputs // _VALUES_PER_WORD)),
            "weight_scale": TensorSpec(weight.dtype, (outputs, inputs // self.group_size)),
            "weight_shape": TensorSpec("I64", (2,)),
        }

    def quantize(self, weight: torch.Tensor) -> Mapping[str, torch.Tensor]:
        outputs, inputs = weight.shape
        groups = weight.float().view(outputs, inputs // self.group_size, self.group_size)
        scale = _best_scale(groups, weight.dtype)
        values = _rounded(groups, scale).view(outputs, inputs)
        return {
            "weight_packed": _pack(values),
            "weight_scale": scale.squeeze(-1).to(weight.dtype),
            "weight_shape": torch.tensor([outputs, inputs], dtype=torch.int64),
        }

    def dequantize(self, parts: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """W ≈ (unpacked value - 8) · scale of its group."""
        outputs, inputs = parts["weight_shape"].tolist()
        groups = _unpack(parts["weight_packed"]).float().view(outputs, -1, self.group_size)
        return (groups * parts["weight_scale"].float().unsqueeze(-1)).view(outputs, inputs)

    def round_activations(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs

    def config(self, ignore: Sequence[str]) -> dict[str, Any]:
        weights = {
            "num_bits": 4,
            "type": "int",
            "symmetric": True,
            "strategy": "group",
            "group_size": self.group_size,
            "dynamic": False,
            "observer": "mse",
        }
        group = {"targets": ["Linear"], "weights": weights, "input_activations": None, "output_activations": None}
        return {
            "quant_method": "compressed-tensors",
            "format": self.format,
            "quantization_status": "compressed",
            "ignore": list(ignore),
            "kv_cache_scheme": None,
            "config_groups": {"group_0": {**group, "format": self.format}},
        }


def _best_scale(groups: torch.Tensor, stored_as: torch.dtype) -> torch.Tensor:
    """Scales (N, K/group, 1), already rounded to the type they are stored in; 1 for a group of zeros."""
    full = groups.abs().amax(dim=-1, keepdim=True) / _FULL_RANGE
    smallest = torch.finfo(stored_as).tiny
    best = torch.ones_like(full)
    least = torch.full_like(full, torch.inf)
    for shrink in _SHRINKS:
        scale = (full * shrink).clamp_min(smallest).to(stored_as).float()
        error = (_rounded(groups, scale) * scale - groups).square().sum(dim=-1, keepdim=True)
        better = error < least
        best, least = scale.where(better, best), error.where(better, least)
    return best.where(full > 0, 1.0)


def _rounded(groups: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    return (groups / scale).round().clamp(_SMALLEST, _LARGEST)


def _pack(values: torch.Tensor) -> torch.Tensor:
    """(N, K) in -8 … 7 → int32 (N, K/8). Pairs become bytes, bytes become little-endian words."""
    nibbles = (values - _SMALLEST).to(torch.uint8)
    low, high = nibbles[:, 0::2], nibbles[:, 1::2]
    return (low | (high << 4)).contiguous().view(torch.int32)


def _unpack(words: torch.Tensor) -> torch.Tensor:
    """int32 (N, K/8) → int8 (N, K) in -8 … 7."""
    pairs = words.contiguous().view(torch.uint8)
    nibbles = torch.stack((pairs & 0x0F, pairs >> 4), dim=-1).flatten(1)
    return nibbles.to(torch.int8) + _SMALLEST
