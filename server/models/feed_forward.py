"""Feed-forward parts of a block: gated or plain, one for all tokens or experts that a router picks.

Gated (SwiGLU, GeGLU): W_down · (act(W_gate · x) ∘ (W_up · x)), three matrices; plain: W_out · act(W_in · x), two.
"""

from __future__ import annotations

from dataclasses import dataclass

from server.errors import CheckpointError
from server.models.architecture import Linear
from server.models.document import Document
from server.models.shape_keys import feed_forward_width, hidden_size, layers, needed

__all__ = ["Experts", "feed_forward", "read_experts"]


def feed_forward(hidden: int, width: int, *, gated: bool = True, bias: bool = False) -> tuple[Linear, ...]:
    ways_in = 2 if gated else 1
    return (*[Linear(hidden, width, bias)] * ways_in, Linear(width, hidden, bias))


@dataclass(frozen=True, slots=True, kw_only=True)
class Experts:
    """A mixture of experts: which layers have one, and what a token passes there."""

    linears: tuple[Linear, ...]
    """Router, routed experts, shared experts."""
    sparse_layers: frozenset[int]


def read_experts(config: Document, *, bias: bool = False) -> Experts:
    """`bias`: of experts and router."""
    hidden = hidden_size(config)
    count = needed(config, "n_routed_experts", "num_local_experts", "num_experts")
    used = needed(config, "num_experts_per_tok", "num_experts_per_token")
    if used > count:
        raise CheckpointError(f"{config.path}: {used} of {count} experts a token. Export or download the files again.")
    width = config.integer("moe_intermediate_size", least=1) or feed_forward_width(config)
    routed = [linear._replace(copies=count, used=used) for linear in feed_forward(hidden, width, bias=bias)]
    router = Linear(hidden, count, bias)
    return Experts(linears=(router, *routed, *_shared(config, hidden, width)), sparse_layers=_sparse_layers(config))


def _shared(config: Document, hidden: int, width: int) -> tuple[Linear, ...]:
    """Experts that every token passes: DeepSeek counts them, Qwen2-MoE has one of its own width behind a gate."""
    own_width = config.integer("shared_expert_intermediate_size")
    if own_width:
        return (*feed_forward(hidden, own_width), Linear(hidden, 1))
    count = config.integer("n_shared_experts")
    return feed_forward(hidden, count * width) if count else ()


def _sparse_layers(config: Document) -> frozenset[int]:
    """DeepSeek has `first_k_dense_replace`, Qwen `decoder_sparse_step`, Jamba `expert_layer_period`; else all."""
    first, frequency = config.integer("first_k_dense_replace") or 0, config.integer("moe_layer_freq", least=1) or 1
    step = config.integer("decoder_sparse_step", least=1) or 1
    period, offset = config.integer("expert_layer_period", least=1) or 1, config.integer("expert_layer_offset") or 0
    dense = config.raw("mlp_only_layers") or ()
    return frozenset(
        index
        for index in range(layers(config))
        if index >= first
        and index % frequency == 0
        and (index + 1) % step == 0
        and index % period == offset % period
        and index not in dense
    )
