"""Attention of a block and its projections: multi-head, grouped, multi-query, latent, windowed."""

from __future__ import annotations

from typing import Literal

from server.errors import CheckpointError
from server.models.architecture import Attention, Linear
from server.models.document import Document
from server.models.shape_keys import head_dim, heads, hidden_size, kv_heads, layers, needed

__all__ = ["WindowPattern", "grouped_attention", "grouped_projections", "latent_attention", "windows"]

WindowPattern = Literal["never", "every", "even", "all_but_every_nth", "upper", "named"]
"""Which layers have the sliding window, where `layer_types` does not say."""


def grouped_attention(config: Document, window: int | None = None) -> Attention:
    """MHA, MQA, GQA: K and V of `kv_heads` heads are cached."""
    size = head_dim(config)
    return Attention(
        heads=heads(config), key_dim=size, value_dim=size, cached_values=2 * kv_heads(config) * size, window=window
    )


def grouped_projections(config: Document, *, qkv_bias: bool = False, out_bias: bool = False) -> tuple[Linear, ...]:
    """Q, K, V and output; fused in one matrix they are as many."""
    hidden, queries, keys = hidden_size(config), heads(config) * head_dim(config), kv_heads(config) * head_dim(config)
    into = (Linear(hidden, queries, qkv_bias), *[Linear(hidden, keys, qkv_bias)] * 2)
    return (*into, Linear(queries, hidden, out_bias))


def latent_attention(config: Document) -> tuple[tuple[Linear, ...], Attention, int]:
    """Multi-head latent attention: projections, attention, parameters of its two inner norms.

    Cached: the latent c_KV (kv_lora_rank) and one rotary key (qk_rope_head_dim), shared by all heads.
    Source: DeepSeek-V2, arXiv 2405.04434, section 2.1.
    """
    hidden, count = hidden_size(config), heads(config)
    plain, rotary = needed(config, "qk_nope_head_dim"), needed(config, "qk_rope_head_dim")
    value, latent = needed(config, "v_head_dim"), needed(config, "kv_lora_rank")
    query_rank = config.integer("q_lora_rank", least=1)
    bias = bool(config.flag("attention_bias"))
    key = plain + rotary
    queries = (
        (Linear(hidden, query_rank, bias), Linear(query_rank, count * key))
        if query_rank
        else (Linear(hidden, count * key),)
    )
    linears = (
        *queries,
        Linear(hidden, latent + rotary, bias),
        Linear(latent, count * (plain + value)),
        Linear(count * value, hidden, bias),
    )
    attention = Attention(
        heads=count,
        key_dim=key,
        value_dim=value,
        cached_values=latent + rotary,
        latent=(latent + rotary, latent),
    )
    return linears, attention, (query_rank or 0) + latent


def windows(config: Document, pattern: WindowPattern) -> tuple[int | None, ...]:
    """Each layer's window in tokens, None where it attends to everything before it."""
    count, window = layers(config), config.integer("sliding_window") or None
    kinds = config.texts("layer_types")
    if kinds is None:
        slides = _by_pattern(config, pattern)
    elif len(kinds) == count and set(kinds) <= {"full_attention", "sliding_attention"}:
        slides = tuple(kind == "sliding_attention" for kind in kinds)
    else:
        raise CheckpointError(f"{config.path}: `layer_types` names kinds of layers that no formula here knows.")
    if window is None and pattern != "every" and any(slides):
        raise CheckpointError(f"{config.path}: has no `sliding_window`. Export or download the files again.")
    return tuple(window if sliding else None for sliding in slides)


def _by_pattern(config: Document, pattern: WindowPattern) -> tuple[bool, ...]:
    indices = range(layers(config))
    match pattern:
        case "never":
            return tuple(False for _ in indices)
        case "every":
            return tuple(True for _ in indices)
        case "even":
            return tuple(index % 2 == 0 for index in indices)
        case "all_but_every_nth":
            nth = config.integer("sliding_window_pattern", least=1) or 6
            return tuple((index + 1) % nth != 0 for index in indices)
        case "upper":
            # Qwen2, Qwen3: off by default; then the layers from `max_window_layers` on.
            first = needed(config, "max_window_layers") if config.flag("use_sliding_window") else len(indices)
            return tuple(index >= first for index in indices)
        case "named":
            if config.flag("use_sliding_window"):
                raise CheckpointError(f"{config.path}: has no `layer_types`. Export or download the files again.")
            return tuple(False for _ in indices)
