"""Reads a checkpoint's weights as an engine computes with them."""

from __future__ import annotations

from typing import Final

import torch

from quant.checkpoint import Checkpoint
from quant.methods import method_on_disk

__all__ = ["read_weights"]

_KV_CACHE_SCALES: Final = (".k_scale", ".v_scale")  # of the cache, no weights: an engine reads them beside the weights


def read_weights(checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    """Every weight by its unquantized name, float32."""
    stored = {
        name: tensor
        for file in checkpoint.files
        for name, tensor in checkpoint.tensors(file)
        if not name.endswith(_KV_CACHE_SCALES)
    }
    if checkpoint.quantization is None or not checkpoint.quantization.get("config_groups"):
        return {name: tensor.float() for name, tensor in stored.items()}
    method = method_on_disk(checkpoint.quantization)
    parts: dict[str, dict[str, torch.Tensor]] = {
        name.removesuffix("_scale"): {} for name in stored if name.endswith(".weight_scale")
    }
    weights: dict[str, torch.Tensor] = {}
    for name, tensor in stored.items():
        module, _, part = name.rpartition(".")
        if (weight := f"{module}.weight") in parts and part != "bias":
            parts[weight][part] = tensor
        else:
            weights[name] = tensor.float()
    return weights | {name: method.dequantize(found) for name, found in parts.items()}
