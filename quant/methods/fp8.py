"""8-bit floating-point weights and activations; layout `float-quantized`.

On disk: `weight` float8_e4m3fn (N, K); `weight_scale` in the weight's own type, one an output (N, 1) or one a block of
128 x 128 (N/128, K/128). Activations are rounded by the engine: one scale a token, or one for every 128 inputs of it.
Source: compressed-tensors, quantization/quant_scheme.py, FP8_DYNAMIC and FP8_BLOCK.
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

__all__ = ["Fp8Block", "Fp8Dynamic"]

_LARGEST: Final = 448.0  # of float8_e4m3fn
_BLOCK: Final = 128
_FLOATS: Final[Mapping[str, Any]] = {"num_bits": 8, "type": "float", "symmetric": True}


@dataclass(frozen=True, slots=True)
class Fp8Dynamic:
    """Round to nearest; scale = max |w| / 448 over each output's row."""

    format: ClassVar[str] = "float-quantized"
    rows_together: ClassVar[int] = 1

    @classmethod
    def from_options(cls, options: Options) -> Fp8Dynamic:
        """Takes no options: a scale belongs to a whole row."""
        _refuse_options("fp8-dynamic", options)
        return cls()

    def layout(self, weight: TensorSpec) -> Mapping[str, TensorSpec]:
        outputs, inputs = weight.shape
        scale = TensorSpec(weight.dtype, (outputs, 1))
        return {"weight": TensorSpec("F8_E4M3", (outputs, inputs)), "weight_scale": scale}

    def quantize(self, weight: torch.Tensor) -> Mapping[str, torch.Tensor]:
        scale = scale_of(largest(weight), _LARGEST)
        return {"weight": _rounded(weight, scale), "weight_scale": scale}

    def dequantize(self, parts: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """W ≈ weight · weight_scale; a scale for the whole matrix, as other writers have it, will do as well."""
        return parts["weight"].float() * parts["weight_scale"].float()

    def round_activations(self, inputs: torch.Tensor) -> torch.Tensor:
        return _round_activations(inputs)

    def config(self, ignore: Sequence[str]) -> dict[str, Any]:
        weights = {**_FLOATS, "strategy": "channel", "dynamic": False, "observer": "minmax"}
        inputs = {**_FLOATS, "strategy": "token", "dynamic": True, "observer": None}
        return quantization_config(self.format, weights, inputs, ignore)


@dataclass(frozen=True, slots=True)
class Fp8Block:
    """Round to nearest; scale = max |w| / 448 over each block of 128 outputs and 128 inputs."""

    format: ClassVar[str] = "float-quantized"
    rows_together: ClassVar[int] = _BLOCK

    @classmethod
    def from_options(cls, options: Options) -> Fp8Block:
        """Takes no options: engines have kernels for 128 x 128 only."""
        _refuse_options("fp8-block", options)
        return cls()

    def layout(self, weight: TensorSpec) -> Mapping[str, TensorSpec]:
        outputs, inputs = weight.shape
        if outputs % _BLOCK or inputs % _BLOCK:
            raise SchemeError(
                f"its {outputs} x {inputs} weights do not divide into blocks of {_BLOCK} x {_BLOCK}. "
                "Choose scheme fp8-dynamic instead, or leave the layer out by `ignore`."
            )
        scale = TensorSpec(weight.dtype, (outputs // _BLOCK, inputs // _BLOCK))
        return {"weight": TensorSpec("F8_E4M3", (outputs, inputs)), "weight_scale": scale}

    def quantize(self, weight: torch.Tensor) -> Mapping[str, torch.Tensor]:
        outputs, inputs = weight.shape
        blocks = weight.view(outputs // _BLOCK, _BLOCK, inputs // _BLOCK, _BLOCK)
        columns = largest(blocks)  # (N/128, 128, K/128, 1)
        scale = scale_of(columns.amax(dim=1, keepdim=True), _LARGEST)  # (N/128, 1, K/128, 1)
        return {"weight": _rounded(blocks, scale).view(outputs, inputs), "weight_scale": scale[:, 0, :, 0].contiguous()}

    def dequantize(self, parts: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """W ≈ weight · weight_scale of its block; the last blocks may be smaller, as other writers have it."""
        outputs, inputs = parts["weight"].shape
        scale = parts["weight_scale"].float().repeat_interleave(_BLOCK, 0).repeat_interleave(_BLOCK, 1)
        return parts["weight"].float() * scale[:outputs, :inputs]

    def round_activations(self, inputs: torch.Tensor) -> torch.Tensor:
        if inputs.shape[-1] % _BLOCK:
            return _round_activations(inputs)
        return _round_activations(inputs.unflatten(-1, (-1, _BLOCK))).flatten(-2)

    def config(self, ignore: Sequence[str]) -> dict[str, Any]:
        block = {"strategy": "block", "block_structure": [_BLOCK, _BLOCK], "dynamic": False, "observer": "minmax"}
        inputs = {**_FLOATS, "strategy": "group", "group_size": _BLOCK, "dynamic": True, "observer": None}
        return quantization_config(self.format, {**_FLOATS, **block}, inputs, ignore)


def _refuse_options(scheme: str, options: Options) -> None:
    if options != Options():
        raise SchemeError(
            f"Scheme {scheme} has nothing to choose. Leave group_size, symmetric, search and precise out."
        )


def _rounded(values: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    return (values / scale).clamp_(-_LARGEST, _LARGEST).to(torch.float8_e4m3fn)


def _round_activations(inputs: torch.Tensor) -> torch.Tensor:
    """Inputs (…, K) with one scale for the last dimension."""
    values = inputs.float()
    scale = scale_of(largest(values), _LARGEST)
    return (_rounded(values, scale).float() * scale).to(inputs.dtype)
