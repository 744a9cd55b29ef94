"""8-bit integer weights and activations; layout `int-quantized`.

On disk: `weight` int8 (N, K) and `weight_scale` float32 (N, 1), one scale an output. Activations are rounded by the
engine, one scale a token. Source: compressed-tensors, compressors/quantized_compressors/naive_quantized.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import torch

from quant.errors import SchemeError
from quant.methods.method import Options
from quant.safetensors_file import TensorSpec

__all__ = ["W8A8Int8"]

_LARGEST: Final = 127  # -128 stays unused: the range is symmetric


@dataclass(frozen=True, slots=True)
class W8A8Int8:
    """Round to nearest; scale = max |w| / 127 over each output's row."""

    format: ClassVar[str] = "int-quantized"

    @classmethod
    def from_options(cls, options: Options) -> W8A8Int8:
        """Takes no group size: a scale belongs to a whole row."""
        if options.group_size is not None:
            raise SchemeError("Scheme w8a8-int8 has one scale a row and no groups. Leave the group size out.")
        return cls()

    def layout(self, weight: TensorSpec) -> Mapping[str, TensorSpec]:
        outputs, inputs = weight.shape
        return {"weight": TensorSpec("I8", (outputs, inputs)), "weight_scale": TensorSpec("F32", (outputs, 1))}

    def quantize(self, weight: torch.Tensor) -> Mapping[str, torch.Tensor]:
        rounded, scale = _round_rows(weight.float())
        return {"weight": rounded, "weight_scale": scale}

    def dequantize(self, parts: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """W ≈ weight · weight_scale."""
        return parts["weight"].float() * parts["weight_scale"].float()

    def round_activations(self, inputs: torch.Tensor) -> torch.Tensor:
        rounded, scale = _round_rows(inputs.float())
        return (rounded.float() * scale).to(inputs.dtype)

    def config(self, ignore: Sequence[str]) -> dict[str, Any]:
        integers = {"num_bits": 8, "type": "int", "symmetric": True, "group_size": None}
        weights = {**integers, "strategy": "channel", "dynamic": False, "observer": "minmax"}
        inputs = {**integers, "strategy": "token", "dynamic": True, "observer": None}
        group = {"targets": ["Linear"], "weights": weights, "input_activations": inputs, "output_activations": None}
        return {
            "quant_method": "compressed-tensors",
            "format": self.format,
            "quantization_status": "compressed",
            "ignore": list(ignore),
            "kv_cache_scheme": None,
            "config_groups": {"group_0": {**group, "format": self.format}},
        }


def _round_rows(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """int8 values (…, K) and float32 scales (…, 1); a row of zeros gets scale 1."""
    scale = values.abs().amax(dim=-1, keepdim=True) / _LARGEST
    scale = scale.where(scale > 0, 1.0)
    return (values / scale).round().clamp(-_LARGEST, _LARGEST).char(), scale
