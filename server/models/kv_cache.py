"""Bytes of KV cache that one token needs.

KV bytes/token = 2 · L · kv · d · bytes; L layers, kv key-value heads, d head dimension (one K and one V each).
Multi-head latent attention (DeepSeek V2, V3) keeps one latent a layer instead:
L · (kv_lora_rank + qk_rope_head_dim) · bytes. Source: DeepSeek-V2, arXiv 2405.04434.
"""

from __future__ import annotations

from typing import Final

from server.models.document import Document
from server.units import Bytes

__all__ = ["kv_bytes", "kv_values_per_token"]

_DECODERS: Final = ("ForCausalLM", "ForConditionalGeneration", "LMHeadModel")
_LATENT: Final = frozenset({"deepseek_v2", "deepseek_v3", "kimi_k2"})
_SAME_CACHE: Final = frozenset({"full_attention", "sliding_attention"})
"""Layer types whose tokens cost the formula's bytes (within the window)."""
_OTHER_SHAPES: Final = frozenset({
    "compress_ratios", "index_head_dim",  # sparse attention keeps an index as well
    "num_kv_shared_layers", "global_head_dim", "num_global_key_value_heads", "block_configs", "per_layer_config",
    "mamba_d_state", "mamba_d_ssm", "ssm_cfg", "state_size", "ssm_state_size", "linear_num_value_heads",
    "attn_layer_period", "full_attention_interval", "hybrid_override_pattern", "layers_block_type", "attn_type_list",
    "add_cross_attention", "cross_attention_layers",
})  # fmt: skip
"""Keys of models whose layers differ from one another, share or do without a KV cache."""


def kv_values_per_token(config: Document, architecture: str | None) -> int | None:
    """Numbers a token leaves in the KV cache, all layers together; None for a shape that no formula here knows."""
    text = config.child("text_config") or config
    if not _is_plain_decoder(config, text, architecture):
        return None
    layers = text.integer("num_hidden_layers", least=1) or text.integer("n_layer", least=1)
    if layers is None:
        return None
    if "kv_lora_rank" in text:
        latent, rope = text.integer("kv_lora_rank", least=1), text.integer("qk_rope_head_dim", least=1)
        known = text.text("model_type") in _LATENT and latent is not None and rope is not None
        return layers * (latent + rope) if known and latent and rope else None
    heads = text.integer("num_attention_heads", least=1) or text.integer("n_head", least=1)
    hidden = text.integer("hidden_size", least=1) or text.integer("n_embd", least=1)
    head_dim = text.integer("head_dim") or (hidden // heads if hidden and heads else None)
    kv_heads = _kv_heads(text) or heads
    return 2 * layers * kv_heads * head_dim if kv_heads and head_dim else None


def _is_plain_decoder(config: Document, text: Document, architecture: str | None) -> bool:
    if architecture is None or not architecture.endswith(_DECODERS) or config.flag("is_encoder_decoder"):
        return False
    if any(key in text for key in _OTHER_SHAPES if text.raw(key) is not False):
        return False
    kinds = text.raw("layer_types") or []
    return isinstance(kinds, list) and all(kind in _SAME_CACHE for kind in kinds if isinstance(kind, str))


def _kv_heads(text: Document) -> int | None:
    """GQA under its several names; Falcon's and StarCoder's `multi_query` is one head."""
    names = ("num_key_value_heads", "num_kv_heads", "n_head_kv", "multi_query_group_num", "num_attention_groups")
    if text.raw("multi_query") is True and not text.raw("new_decoder_architecture"):
        return 1
    return next((heads for name in names if (heads := text.integer(name, least=1))), None)


def kv_bytes(values: int | None, bits: int | None) -> Bytes | None:
    """The same in bytes."""
    return Bytes(values * bits // 8) if values is not None and bits is not None else None
