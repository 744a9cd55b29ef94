"""Which architectures are known, by `model_type`; anything else is unknown, never guessed.

A decoder is what it does differently from Llama. A test compares every entry with the class of `transformers`: the same
number of parameters, the same FLOPs in its matrices.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from server.errors import CheckpointError
from server.models.architecture import Architecture
from server.models.decoder import Decoder, read_decoder
from server.models.document import Document
from server.models.shape_keys import flag, hidden_size, needed
from server.models.state_space import read_bamba, read_jamba, read_mamba, read_mamba2

__all__ = ["FAMILIES", "read_architecture"]

_CAUSAL: Final = ("ForCausalLM", "LMHeadModel")


def read_architecture(config: Document | Mapping[str, Any]) -> Architecture | None:
    """The architecture that a `config.json` describes; None if a part of it is unknown here, or broken."""
    document = config if isinstance(config, Document) else Document(Path("config.json"), dict(config))
    try:
        family = document.text("model_type") or ""
        names = document.texts("architectures")
        causal = not names or names[0].endswith(_CAUSAL)
        read = FAMILIES.get(family) if causal and not document.flag("is_encoder_decoder") else None
        return read(family, document) if read else None
    except CheckpointError:
        return None


def _decoder(**traits: Any) -> Callable[[str, Document], Architecture]:
    known = Decoder(**traits)
    return lambda family, config: read_decoder(family, known, config)


def _gpt2_positions(config: Document) -> int:
    return needed(config, "n_positions", "max_position_embeddings")


def _opt_positions(config: Document) -> int:
    """OPT's table begins with two rows that no position uses. Its 350M model projects narrower embeddings: unknown."""
    if config.integer("word_embed_proj_dim") not in {None, hidden_size(config)}:
        raise CheckpointError(f"{config.path}: no formula here knows this `word_embed_proj_dim`.")
    return needed(config, "max_position_embeddings") + 2


def _falcon_norms(config: Document) -> int:
    """In a block: attention and feed-forward part may run in parallel, behind one norm or one each."""
    if not flag(config, ("parallel_attn", True)):
        return 2
    default = 2 if config.flag("new_decoder_architecture") else 1
    return config.integer("num_ln_in_parallel_attn", least=1) or default


_BIASED: Final = {"qkv_bias": True, "out_bias": True, "mlp_bias": True}
_PLAIN: Final = {"norm_width": 2, "gated": False}

FAMILIES: Final[Mapping[str, Callable[[str, Document], Architecture]]] = {
    "llama": _decoder(mlp_bias=("mlp_bias", False)),
    "mistral": _decoder(window="every"),
    "ministral": _decoder(window="every"),
    "qwen2": _decoder(qkv_bias=True, out_bias=False, window="upper"),
    "qwen3": _decoder(query_key_norm="head", window="upper"),
    "gemma": _decoder(tied=True),
    "gemma2": _decoder(norms=4, window="even", tied=True),
    "gemma3_text": _decoder(norms=4, query_key_norm="head", window="all_but_every_nth", tied=True),
    "phi3": _decoder(window="every"),
    "olmo": _decoder(norm_width=0),
    "olmo2": _decoder(query_key_norm="all_heads"),
    "granite": _decoder(mlp_bias=("mlp_bias", False)),
    "smollm3": _decoder(mlp_bias=("mlp_bias", False), window="named", tied=True),
    # Plain feed-forward parts and LayerNorm.
    "starcoder2": _decoder(
        **_PLAIN, qkv_bias=("use_bias", True), out_bias=("use_bias", True), mlp_bias=("use_bias", True),
        window="every", tied=True,
    ),
    "gpt2": _decoder(
        **_PLAIN, **_BIASED, default_width=4, positions=_gpt2_positions, tied=True,
        refuses={"add_cross_attention": True},
    ),
    "gpt_bigcode": _decoder(
        **_PLAIN, **_BIASED, default_width=4, positions=_gpt2_positions, tied=True,
        refuses={"add_cross_attention": True},
    ),
    "gpt_neox": _decoder(
        **_PLAIN, qkv_bias=("attention_bias", True), out_bias=("attention_bias", True), mlp_bias=True
    ),
    "phi": _decoder(**_PLAIN, **_BIASED, norms=1, head_bias=True, refuses={"qk_layernorm": True}),
    "opt": _decoder(
        **_PLAIN, qkv_bias=("enable_bias", True), out_bias=("enable_bias", True), mlp_bias=("enable_bias", True),
        positions=_opt_positions, tied=True,
        refuses={
            "do_layer_norm_before": False, "layer_norm_elementwise_affine": False, "_remove_final_layer_norm": True,
        },
    ),
    "falcon": _decoder(
        **_PLAIN, qkv_bias=("bias", False), out_bias=("bias", False), mlp_bias=("bias", False),
        norms=_falcon_norms, default_width=4, tied=True,
    ),
    "bloom": _decoder(**_PLAIN, **_BIASED, default_width=4, norms_outside=2, tied=True),
    # Experts.
    "mixtral": _decoder(experts=True, window="every"),
    "qwen2_moe": _decoder(experts=True, qkv_bias=("qkv_bias", True), out_bias=False, window="named"),
    "qwen3_moe": _decoder(experts=True, query_key_norm="head", window="named"),
    "olmoe": _decoder(experts=True, query_key_norm="all_heads"),
    "granitemoe": _decoder(experts=True),
    "gpt_oss": _decoder(
        experts=True, expert_bias=True, sinks=True, window="even",
        qkv_bias=("attention_bias", True), out_bias=("attention_bias", True),
    ),
    "glm4_moe": _decoder(experts=True, query_key_norm="if_asked", out_bias=False),
    # Multi-head latent attention, and experts.
    "deepseek_v2": _decoder(experts=True, latent=True),
    "deepseek_v3": _decoder(experts=True, latent=True),
    "kimi_k2": _decoder(experts=True, latent=True),
    # State spaces.
    "mamba": read_mamba,
    "falcon_mamba": read_mamba,
    "mamba2": read_mamba2,
    "jamba": read_jamba,
    "bamba": read_bamba,
}  # fmt: skip
"""What reads a family; Kimi K2 has DeepSeek V3's layers under its own name."""
