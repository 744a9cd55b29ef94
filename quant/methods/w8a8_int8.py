"""8-bit integer weights and activations; layout `int-quantized`.

On disk: `weight` int8 (N, K) and `weight_scale` (N, 1), one scale an output. Activations are rounded by the engine, one
scale a token. Source: compressed-tensors, compressors/naive_quantized/base.py.

bf16, in which compressed-tensors computes, has 8 significant bits for quotients as for scales: rounding in
float32 (`precise`) loses markedly less, and gives other codes than llm-compressor's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import torch

from quant.errors import SchemeError
from quant.methods.method import Options, quantization_config
from quant.methods.scales import largest, scale_of
from quant.safetensors_file import TensorSpec

__all__ = ["W8A8Int8"]

_SMALLEST, _LARGEST = -128, 127
_HALF_RANGE: Final = 127.5


@dataclass(frozen=True, slots=True)
class W8A8Int8:
    """Round to nearest; scale = max |w| / 127.5 over each output's row, or, `precise`, max |w| / 127 in float32."""

    format: ClassVar[str] = "int-quantized"
    rows_together: ClassVar[int] = 1
    precise: bool = False

    @classmethod
    def from_options(cls, options: Options) -> W8A8Int8:
        """Takes `precise` only: a scale belongs to a whole row."""
        if options != Options(precise=options.precise):
            raise SchemeError(
                "Scheme w8a8-int8 has one symmetric scale a row: no groups, no zero points, no search. "
                "Leave group_size, symmetric and search out."
            )
        return cls(bool(options.precise))

    def layout(self, weight: TensorSpec) -> Mapping[str, TensorSpec]:
        outputs, inputs = weight.shape
        scale = TensorSpec("F32" if self.precise else weight.dtype, (outputs, 1))
        return {"weight": TensorSpec("I8", (outputs, inputs)), "weight_scale": scale}

    def quantize(self, weight: torch.Tensor) -> Mapping[str, torch.Tensor]:
        if self.precise:
            wide = weight.float()
            scale = scale_of(largest(wide), _LARGEST)
            return {"weight": (wide / scale).round_().char(), "weight_scale": scale}
        scale = scale_of(largest(weight), _HALF_RANGE)
        return {"weight": (weight / scale).clamp_(_SMALLEST, _LARGEST).round_().char(), "weight_scale": scale}

    def dequantize(self, parts: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """W ≈ weight · weight_scale."""
        return parts["weight"].float() * parts["weight_scale"].float()

    def round_activations(self, inputs: torch.Tensor) -> torch.Tensor:
        values = inputs.float()
        scale = scale_of(largest(values), _LARGEST)  # vLLM's kernels: max |x| / 127 over a token
        return ((values / scale).round() * scale).to(inputs.dtype)

    def config(self, ignore: Sequence[str]) -> dict[str, Any]:
        integers = {"num_bits": 8, "type": "int", "symmetric": True, "group_size": None}
        weights = {**integers, "strategy": "channel", "dynamic": False, "observer": "minmax"}
        inputs = {**integers, "strategy": "token", "dynamic": True, "observer": None}
        return quantization_config(self.format, weights, inputs, ignore)
