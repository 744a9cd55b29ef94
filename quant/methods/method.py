"""The contract of a quantization method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from quant.safetensors_file import TensorSpec

__all__ = ["Method", "Options", "quantization_config"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a user may choose; None: the method's own default."""

    group_size: int | None = None  # inputs that share a scale
    symmetric: bool | None = None  # False: a zero point a group as well
    search: bool | None = None  # True: of several scales the one with the least squared error
    precise: bool | None = None  # True: scales and quotients in float32, whatever the weight's type


class Method(Protocol):
    """Turns one weight matrix W (outputs N, inputs K) into the tensors that an engine loads, and back.

    A method is a frozen value without state; equal inputs give equal bytes. Cost: a few passes over the matrix, on
    the CPU, with a few copies of it in memory; whoever wants less gives a block of rows at a time.
    """

    @property
    def format(self) -> str:
        """The compressed-tensors name of the layout on disk."""

    @property
    def rows_together(self) -> int:
        """Rows that must come in one block: blocks of a multiple of it, stacked along dimension 0, are the whole."""

    def layout(self, weight: TensorSpec) -> Mapping[str, TensorSpec]:
        """The tensors that replace `weight`, by the last part of their name, in the order they are written.

        Raises `SchemeError`, without naming the layer, if the shape does not fit.
        """

    def quantize(self, weight: torch.Tensor) -> Mapping[str, torch.Tensor]:
        """Round `weight` (N, K), which is finite, into exactly the tensors of `layout`."""

    def dequantize(self, parts: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The matrix (N, K), float32, that an engine computes with."""

    def round_activations(self, inputs: torch.Tensor) -> torch.Tensor:
        """What a layer's inputs (…, K) become before the product; the inputs themselves if they stay as they are."""

    def config(self, ignore: Sequence[str]) -> dict[str, Any]:
        """The `quantization_config` of config.json; `ignore` names the linear modules that stay as they are."""


def quantization_config(
    layout: str, weights: Mapping[str, Any], inputs: Mapping[str, Any] | None, ignore: Sequence[str]
) -> dict[str, Any]:
    """One scheme for all linear layers, as compressed-tensors writes it into config.json."""
    group = {"targets": ["Linear"], "weights": dict(weights), "input_activations": inputs, "output_activations": None}
    return {
        "quant_method": "compressed-tensors",
        "format": layout,
        "quantization_status": "compressed",
        "ignore": list(ignore),
        "kv_cache_scheme": None,
        "config_groups": {"group_0": {**group, "format": layout}},
    }
