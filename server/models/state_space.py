"""State-space decoders: Mamba, Mamba-2, and their hybrids with attention.

Scan of one token, elementwise, in its recurrent form (the chunked form of Mamba-2 pays more FLOPs for matrix products):

    Mamba     h = exp(Δ·A) ∘ h + (Δ·x) ⊗ B, y = h · C + D ∘ x: 7 · channels · d_state + 3 · channels
    Mamba-2   the same with one A, Δ a head:                   5 · channels · d_state + 3 · channels + 2 · heads

Sources: Mamba, arXiv 2312.00752, algorithm 2; Mamba-2, arXiv 2405.21060, section 7.
"""

from __future__ import annotations

import math

from server.errors import CheckpointError
from server.models.architecture import Architecture, Attention, Block, Linear, Recurrence
from server.models.attention_layers import grouped_attention, grouped_projections
from server.models.document import Document
from server.models.feed_forward import feed_forward, read_experts
from server.models.shape_keys import feed_forward_width, flag, hidden_size, layers, needed

__all__ = ["read_bamba", "read_jamba", "read_mamba", "read_mamba2"]


def read_mamba(family: str, config: Document) -> Architecture:
    mixer = _mamba(config, prefix="")
    return _architecture(family, config, (_with_norms(mixer, config, norms=1),) * layers(config), tied=True)


def read_mamba2(family: str, config: Document) -> Architecture:
    mixer = _mamba2(config, heads=needed(config, "num_heads"), prefix="")
    return _architecture(family, config, (_with_norms(mixer, config, norms=1),) * layers(config), tied=False)


def read_jamba(family: str, config: Document) -> Architecture:
    """Mamba layers with an attention layer every `attn_layer_period`; each has a feed-forward part or experts."""
    period, offset = needed(config, "attn_layer_period"), config.integer("attn_layer_offset") or 0
    mamba, attention = _mamba(config, prefix="mamba_", inner_norms=True), _attention(config)
    dense = feed_forward(hidden_size(config), feed_forward_width(config))
    several = needed(config, "num_experts") > 1
    experts = read_experts(config) if several else None
    blocks = []
    for index in range(layers(config)):
        mixer = attention if index % period == offset else mamba
        wide = experts.linears if experts and index in experts.sparse_layers else dense
        blocks.append(_with_norms(mixer, config, norms=2, feed_forward=wide))
    return _architecture(family, config, tuple(blocks), tied=False)


def read_bamba(family: str, config: Document) -> Architecture:
    """Mamba-2 layers with attention at `attn_layer_indices`; each has a feed-forward part."""
    indices = config.raw("attn_layer_indices") or ()
    mamba = _mamba2(config, heads=needed(config, "mamba_n_heads"), prefix="mamba_")
    attention = _attention(config, bias=bool(config.flag("attention_bias")))
    wide = feed_forward(hidden_size(config), feed_forward_width(config), bias=bool(config.flag("mlp_bias")))
    blocks = tuple(
        _with_norms(attention if index in indices else mamba, config, norms=2, feed_forward=wide)
        for index in range(layers(config))
    )
    return _architecture(family, config, blocks, tied=False)


def _architecture(family: str, config: Document, blocks: tuple[Block, ...], *, tied: bool) -> Architecture:
    hidden, vocabulary = hidden_size(config), needed(config, "vocab_size")
    return Architecture(
        family=family,
        hidden_size=hidden,
        vocabulary=vocabulary,
        blocks=blocks,
        embedding_parameters=vocabulary * hidden,
        head=Linear(hidden, vocabulary),
        tied=flag(config, ("tie_word_embeddings", tied)),
        other_parameters=hidden,
    )


def _with_norms(mixer: Block, config: Document, *, norms: int, feed_forward: tuple[Linear, ...] = ()) -> Block:
    return Block(
        linears=(*mixer.linears, *feed_forward),
        attention=mixer.attention,
        recurrence=mixer.recurrence,
        other_parameters=mixer.other_parameters + norms * hidden_size(config),
    )


def _attention(config: Document, *, bias: bool = False) -> Block:
    attention: Attention = grouped_attention(config)
    return Block(linears=grouped_projections(config, qkv_bias=bias, out_bias=bias), attention=attention)


def _mamba(config: Document, *, prefix: str, inner_norms: bool = False) -> Block:
    """Jamba writes the keys with a prefix and other names, and normalizes Δ, B and C."""
    hidden = hidden_size(config)
    channels = _channels(config, prefix)
    state = needed(config, f"{prefix}d_state", "state_size")
    kernel = needed(config, f"{prefix}d_conv", "conv_kernel")
    rank = _time_step_rank(config, hidden, f"{prefix}dt_rank" if prefix else "time_step_rank")
    bias = flag(config, (f"{prefix}proj_bias" if prefix else "use_bias", False))
    conv_bias = flag(config, (f"{prefix}conv_bias" if prefix else "use_conv_bias", True))
    return Block(
        linears=(
            Linear(hidden, 2 * channels, bias),
            Linear(channels, rank + 2 * state),
            Linear(rank, channels, bias=True),
            Linear(channels, hidden, bias),
        ),
        recurrence=Recurrence(
            conv_channels=channels,
            conv_kernel=kernel,
            state_values=channels * state,
            scan_flops_per_token=7 * channels * state + 3 * channels,
        ),
        # The convolution, A, D, norms.
        other_parameters=channels * (kernel + conv_bias + state + 1) + (rank + 2 * state if inner_norms else 0),
    )


def _mamba2(config: Document, *, heads: int, prefix: str) -> Block:
    hidden = hidden_size(config)
    channels = _channels(config, prefix)
    state = needed(config, f"{prefix}d_state", "state_size")
    kernel = needed(config, f"{prefix}d_conv", "conv_kernel")
    shared = 2 * needed(config, f"{prefix}n_groups") * state  # B and C, of each group
    bias = flag(config, (f"{prefix}proj_bias" if prefix else "use_bias", False))
    conv_bias = flag(config, (f"{prefix}conv_bias" if prefix else "use_conv_bias", True))
    return Block(
        linears=(Linear(hidden, 2 * channels + shared + heads, bias), Linear(channels, hidden, bias)),
        recurrence=Recurrence(
            conv_channels=channels + shared,
            conv_kernel=kernel,
            state_values=channels * state,
            scan_flops_per_token=5 * channels * state + 3 * channels + 2 * heads,
        ),
        # The convolution; A, D and the bias of Δ of each head; the gated norm.
        other_parameters=(channels + shared) * (kernel + conv_bias) + 3 * heads + channels,
    )


def _channels(config: Document, prefix: str) -> int:
    expand = config.number(f"{prefix}expand")
    if expand is None or expand <= 0:
        raise CheckpointError(f"{config.path}: has no `{prefix}expand`. Export or download the files again.")
    return int(expand * hidden_size(config))


def _time_step_rank(config: Document, hidden: int, key: str) -> int:
    return math.ceil(hidden / 16) if config.raw(key) in {None, "auto"} else needed(config, key)
