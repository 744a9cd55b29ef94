"""Bytes of weights that a step reads, from the checkpoint's own layers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from server.models.architecture import Architecture
from server.models.weights import Layer, LayerKind
from server.units import Bytes

__all__ = ["WeightBytes", "read_weight_bytes"]

_TABLE_NAMES: Final = frozenset({"embeddings"})
"""Token embeddings that `weights.py` does not tell from other matrices: Mamba's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightBytes:
    """Of one copy of the model, as stored: scales and zero points included."""

    every_step: Bytes
    """Read whatever the batch: attention, dense and shared feed-forward parts, routers, norms, head."""
    routed: Bytes
    """All routed experts together."""
    looked_up: Bytes
    """Embedding tables, of which a token takes a row, and layers that a plain step leaves out: not read."""
    experts: int | None = None
    experts_per_token: int | None = None

    def per_step(self, tokens: float) -> float:
        """Read by a step that computes `tokens` tokens: `every_step`, and the experts that at least one of them picks.

        Expected share of distinct experts = 1 - (1 - used/experts) ** tokens, if routers spread evenly; skewed ones
        read less.
        """
        if not self.experts or not self.experts_per_token:
            return float(self.every_step + self.routed)
        missed = math.pow(1 - self.experts_per_token / self.experts, tokens)
        return self.every_step + self.routed * (1 - missed)

    def scaled(self, factor: float) -> WeightBytes:
        """The same weights in numbers of another width."""
        return replace(
            self,
            every_step=Bytes(round(self.every_step * factor)),
            routed=Bytes(round(self.routed * factor)),
            looked_up=Bytes(round(self.looked_up * factor)),
        )


def read_weight_bytes(layers: Mapping[str, Layer], size: Bytes, architecture: Architecture) -> WeightBytes:
    """`size`: of all weight files; what their headers and biases take counts as read in every step."""
    tables: list[int] = []
    routed = left_out = heads = 0
    for layer in layers.values():
        if _is_behind(layer, len(architecture.blocks)):
            left_out += layer.weight_bytes
        elif _is_routed(layer):
            routed += layer.weight_bytes
        elif _is_table(layer):
            tables.append(layer.weight_bytes)
        elif layer.kind is LayerKind.HEAD:
            heads += layer.weight_bytes
    read_by_head = max(tables, default=0) if architecture.tied and not heads else 0
    looked_up = sum(tables) - read_by_head + left_out
    experts = architecture.experts
    return WeightBytes(
        every_step=Bytes(max(size - routed - looked_up, 0)),
        routed=Bytes(routed),
        looked_up=Bytes(looked_up),
        experts=experts[0] if experts else None,
        experts_per_token=experts[1] if experts else None,
    )


def _is_routed(layer: Layer) -> bool:
    """`mlp.experts.7.up_proj`, `block_sparse_moe.experts.7.w1`, `mlp.experts.gate_up_proj`."""
    return ".experts." in layer.name


def _is_table(layer: Layer) -> bool:
    return layer.kind is LayerKind.EMBEDDING or layer.name.rpartition(".")[2] in _TABLE_NAMES


def _is_behind(layer: Layer, blocks: int) -> bool:
    """Layers behind the last: DeepSeek's multi-token prediction, which a plain step does not run."""
    parts = layer.name.split(".")
    after = parts[parts.index("layers") + 1] if "layers" in parts[:-1] else ""
    return after.isdigit() and int(after) >= blocks
