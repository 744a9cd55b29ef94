"""4-bit integer weights in groups, 16-bit activations; layout `pack-quantized`.

On disk: `weight_packed` int32 (N, K/8); `weight_scale` (N, K/group) in the weight's own type; with zero points also
`weight_zero_point` int32 (N/8, K/group), packed along N; `weight_shape` int64 (2,) = (N, K).
Source: compressed-tensors, compressors/pack_quantized/base.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import torch

from quant.errors import SchemeError
from quant.methods.int4_words import LARGEST, SMALLEST, VALUES_PER_WORD, pack, unpack
from quant.methods.method import Options, quantization_config
from quant.methods.scales import largest, scale_of
from quant.safetensors_file import TensorSpec

__all__ = ["W4A16"]

GROUP_SIZES: Final = (32, 64, 128)  # the sizes that every engine's kernel takes
_STEPS: Final = LARGEST - SMALLEST
_HALF_RANGE: Final = _STEPS / 2  # scale = max |w| / 7.5: half a step is cut at one end
_SHRINKS: Final = tuple(1.0 - 0.04 * step for step in range(11))  # 1.00 … 0.60 of that scale are tried


@dataclass(frozen=True, slots=True)
class W4A16:
    """Round to nearest; a group's scale is by its largest magnitude, by its extremes, or searched."""

    format: ClassVar[str] = "pack-quantized"
    group_size: int = 128
    symmetric: bool = True  # False: scale = (max - min) / 15 and a zero point
    search: bool = False  # of eleven scales each group takes the one with the least squared error

    @classmethod
    def from_options(cls, options: Options) -> W4A16:
        """Group size 32, 64 or 128 (the default); a search is for symmetric scales only."""
        size = 128 if options.group_size is None else options.group_size
        if size not in GROUP_SIZES:
            raise SchemeError(f"Group size {size} is not one that engines take. Choose one of: 32, 64, 128.")
        if options.precise is not None:
            raise SchemeError("Scheme w4a16 has 16 codes, which bf16 tells apart. Leave precise out; try search.")
        if options.symmetric is False and options.search:
            raise SchemeError("The search is for symmetric scales only. Leave search out, or symmetric: false.")
        return cls(size, options.symmetric is not False, bool(options.search))

    @property
    def rows_together(self) -> int:
        return 1 if self.symmetric else VALUES_PER_WORD

    def layout(self, weight: TensorSpec) -> Mapping[str, TensorSpec]:
        outputs, inputs = weight.shape
        groups = inputs // self.group_size
        if inputs % self.group_size:
            fitting = [str(size) for size in GROUP_SIZES if inputs % size == 0]
            advice = f"Choose {' or '.join(fitting)}." if fitting else "Choose scheme w8a8-int8 instead."
            raise SchemeError(f"its {inputs} inputs do not divide into groups of {self.group_size}. {advice}")
        if outputs % self.rows_together:
            raise SchemeError(f"its {outputs} outputs are no multiple of 8, as zero points need. Choose symmetric.")
        parts = {
            "weight_packed": TensorSpec("I32", (outputs, inputs // VALUES_PER_WORD)),
            "weight_scale": TensorSpec(weight.dtype, (outputs, groups)),
        }
        if not self.symmetric:
            parts["weight_zero_point"] = TensorSpec("I32", (outputs // VALUES_PER_WORD, groups))
        return {**parts, "weight_shape": TensorSpec("I64", (2,))}

    def quantize(self, weight: torch.Tensor) -> Mapping[str, torch.Tensor]:
        outputs, inputs = weight.shape
        groups = weight.view(outputs, inputs // self.group_size, self.group_size)
        parts: dict[str, torch.Tensor] = {}
        if self.search:
            scale = _best_scale(groups.float(), weight.dtype)
            values = _rounded(groups.float(), scale)
        elif self.symmetric:
            scale = scale_of(largest(groups), _HALF_RANGE)
            values = _rounded(groups, scale)
        else:
            scale, zero = _extremes(groups)
            values = _rounded(groups, scale, zero)
            parts["weight_zero_point"] = pack(zero.squeeze(-1).t()).t().contiguous()
        return {
            "weight_packed": pack(values.view(outputs, inputs)),
            "weight_scale": scale.squeeze(-1).to(weight.dtype),
            **parts,
            "weight_shape": torch.tensor([outputs, inputs], dtype=torch.int64),
        }

    def dequantize(self, parts: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """W ≈ (value - zero point) · scale of its group; as many groups a row as there are scales."""
        outputs, inputs = parts["weight_shape"].tolist()
        scale = parts["weight_scale"].float().unsqueeze(-1)
        groups = unpack(parts["weight_packed"]).float().view(outputs, scale.shape[1], -1)
        if "weight_zero_point" in parts:
            groups -= unpack(parts["weight_zero_point"].t()).t().float().unsqueeze(-1)
        return (groups * scale).view(outputs, inputs)

    def round_activations(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs

    def config(self, ignore: Sequence[str]) -> dict[str, Any]:
        weights: dict[str, Any] = {
            "num_bits": 4,
            "type": "int",
            "symmetric": self.symmetric,
            "strategy": "group",
            "group_size": self.group_size,
            "dynamic": False,
            "observer": "mse" if self.search else "minmax",
        }
        if not self.symmetric:
            weights["zp_dtype"] = "torch.int8"
        return quantization_config(self.format, weights, None, ignore)


def _extremes(groups: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Scales and zero points (N, K/group, 1) in the weight's type: the extremes, and 0, become codes."""
    wide = groups.float()  # exact, and reduced several times faster than bf16
    lowest = wide.amin(dim=-1, keepdim=True).clamp_max_(0).to(groups.dtype)
    highest = wide.amax(dim=-1, keepdim=True).clamp_min_(0).to(groups.dtype)
    scale = scale_of(highest - lowest, _STEPS)
    return scale, (SMALLEST - lowest / scale).clamp_(SMALLEST, LARGEST).round_()


def _best_scale(groups: torch.Tensor, stored_as: torch.dtype) -> torch.Tensor:
    """Scales (N, K/group, 1), already rounded to the type they are stored in; 1 for a group of zeros."""
    full = groups.abs().amax(dim=-1, keepdim=True) / _HALF_RANGE
    smallest = torch.finfo(stored_as).tiny
    best = torch.ones_like(full)
    least = torch.full_like(full, torch.inf)
    for shrink in _SHRINKS:
        scale = (full * shrink).clamp_min(smallest).to(stored_as).float()
        error = (_rounded(groups, scale) * scale - groups).square().sum(dim=-1, keepdim=True)
        better = error < least
        best, least = scale.where(better, best), error.where(better, least)
    return best.where(full > 0, 1.0)


def _rounded(groups: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor | None = None) -> torch.Tensor:
    """Codes as whole numbers in the type of `groups`."""
    quotient = groups / scale
    if zero is not None:
        quotient += zero
    return quotient.clamp_(SMALLEST, LARGEST).round_()
