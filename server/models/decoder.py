"""Decoders that repeat one kind of block: attention, then a feed-forward part or experts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from server.errors import CheckpointError
from server.models.architecture import Architecture, Block, Linear
from server.models.attention_layers import (
    WindowPattern,
    grouped_attention,
    grouped_projections,
    latent_attention,
    windows,
)
from server.models.document import Document
from server.models.feed_forward import Experts, feed_forward, read_experts
from server.models.shape_keys import (
    Flag,
    feed_forward_width,
    flag,
    head_dim,
    heads,
    hidden_size,
    kv_heads,
    needed,
)

__all__ = ["Decoder", "read_decoder"]

_ATTENTION_BIAS: Final = ("attention_bias", False)
_MLP_BIAS: Final = ("mlp_bias", False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoder:
    """What distinguishes a family; the defaults are Llama's."""

    norm_width: int = 1
    """Parameters of a norm by hidden value: 1 RMSNorm, 2 LayerNorm with bias, 0 without any."""
    norms: int | Callable[[Document], int] = 2
    """In a block."""
    query_key_norm: Literal["none", "head", "all_heads", "if_asked"] = "none"
    """Per head or over all of them; `if_asked`: per head where `use_qk_norm` says so."""
    qkv_bias: Flag = _ATTENTION_BIAS
    out_bias: Flag = _ATTENTION_BIAS
    mlp_bias: Flag = False
    gated: bool = True
    default_width: int | None = None
    """Of the feed-forward part, in hidden sizes, where no key says it."""
    experts: bool = False
    expert_bias: bool = False
    sinks: bool = False
    """One learned logit a head."""
    latent: bool = False
    window: WindowPattern = "never"
    positions: Callable[[Document], int] | None = None
    """Rows of a learned position table."""
    norms_outside: int = 1
    head_bias: bool = False
    tied: bool = False
    """Unless `tie_word_embeddings` says otherwise."""
    refuses: Mapping[str, bool] | None = None
    """Flags with a value that this table does not describe."""


def read_decoder(family: str, traits: Decoder, config: Document) -> Architecture:
    """Raises `CheckpointError` for a key that is missing, broken or of an unknown meaning."""
    for key, value in (traits.refuses or {}).items():
        if config.flag(key) is value:
            raise CheckpointError(f"{config.path}: no formula here knows `{key}: {str(value).lower()}`.")
    hidden, vocabulary = hidden_size(config), needed(config, "vocab_size")
    rows = traits.positions(config) if traits.positions else 0
    tied = flag(config, ("tie_word_embeddings", traits.tied))
    return Architecture(
        family=family,
        hidden_size=hidden,
        vocabulary=vocabulary,
        blocks=_blocks(traits, config),
        embedding_parameters=(vocabulary + rows) * hidden,
        head=Linear(hidden, vocabulary, traits.head_bias),
        tied=tied,
        other_parameters=traits.norms_outside * traits.norm_width * hidden,
    )


def _blocks(traits: Decoder, config: Document) -> tuple[Block, ...]:
    experts = read_experts(config, bias=traits.expert_bias) if traits.experts else None
    return tuple(
        _block(traits, config, window, experts if experts and index in experts.sparse_layers else None)
        for index, window in enumerate(windows(config, traits.window))
    )


def _block(traits: Decoder, config: Document, window: int | None, experts: Experts | None) -> Block:
    if traits.latent:
        projections, attention, inner_norms = latent_attention(config)
    else:
        projections = grouped_projections(
            config, qkv_bias=flag(config, traits.qkv_bias), out_bias=flag(config, traits.out_bias)
        )
        attention, inner_norms = grouped_attention(config, window), _query_key_norms(traits, config)
    norms = traits.norms if isinstance(traits.norms, int) else traits.norms(config)
    sinks = heads(config) if traits.sinks else 0
    return Block(
        linears=(*projections, *(experts.linears if experts else _dense(traits, config))),
        attention=attention,
        other_parameters=norms * traits.norm_width * hidden_size(config) + inner_norms + sinks,
    )


def _dense(traits: Decoder, config: Document) -> tuple[Linear, ...]:
    hidden = hidden_size(config)
    width = feed_forward_width(config, default=traits.default_width and traits.default_width * hidden)
    return feed_forward(hidden, width, gated=traits.gated, bias=flag(config, traits.mlp_bias))


def _query_key_norms(traits: Decoder, config: Document) -> int:
    match traits.query_key_norm:
        case "none":
            return 0
        case "head":
            return 2 * head_dim(config)
        case "if_asked":
            return 2 * head_dim(config) if config.flag("use_qk_norm") else 0
        case "all_heads":
            return (heads(config) + kv_heads(config)) * head_dim(config)
