"""Configurations of small models, at least one of every known family."""

from __future__ import annotations

from typing import Any

__all__ = ["CHUNK", "TINY", "TOKENS", "WINDOW"]

TOKENS = 24
WINDOW = 8
CHUNK = 8
"""Tokens that Mamba-2 scans at once."""

_DENSE: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 56,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_OLD = {key: value for key, value in _DENSE.items() if key not in {"num_key_value_heads", "intermediate_size"}}
_OWN_HEADS = _DENSE | {"head_dim": 12}
_SLIDING = {"sliding_window": WINDOW}
_EXPERTS = {"num_experts_per_tok": 2, "num_experts": 6, "moe_intermediate_size": 20}
_LATENT = {
    "num_key_value_heads": 4,
    "q_lora_rank": 24,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 10,
    "qk_rope_head_dim": 4,
    "v_head_dim": 6,
    "moe_intermediate_size": 20,
    "n_routed_experts": 8,
    "n_shared_experts": 2,
    "num_experts_per_tok": 3,
    "first_k_dense_replace": 1,
    "n_group": 2,
    "topk_group": 1,
}
_GPT2 = {
    "vocab_size": 96, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
_STATE = {
    "vocab_size": 96, "hidden_size": 32, "num_hidden_layers": 3, "state_size": 8, "conv_kernel": 4, "expand": 2,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip

TINY: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", _DENSE),
    "llama, biased and tied": (
        "llama",
        _OWN_HEADS | {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True},
    ),
    "mistral": ("mistral", _OWN_HEADS | _SLIDING),
    "mistral without window": ("mistral", _DENSE | {"sliding_window": None}),
    "ministral": (
        "ministral",
        _OWN_HEADS | _SLIDING | {"layer_types": ["full_attention", "sliding_attention", "sliding_attention"]},
    ),
    "qwen2": ("qwen2", _DENSE),
    "qwen2, upper layers slide": (
        "qwen2",
        _DENSE | _SLIDING | {"use_sliding_window": True, "max_window_layers": 1},
    ),
    "qwen3": ("qwen3", _OWN_HEADS),
    "gemma": ("gemma", _OWN_HEADS),
    "gemma2": ("gemma2", _OWN_HEADS | _SLIDING),
    "gemma3": ("gemma3_text", _OWN_HEADS | _SLIDING | {"num_hidden_layers": 7}),
    "phi3": ("phi3", _DENSE | _SLIDING),
    "olmo": ("olmo", _DENSE),
    "olmo2": ("olmo2", _DENSE),
    "granite": ("granite", _DENSE),
    "smollm3": ("smollm3", _DENSE | {"no_rope_layers": [1, 1, 0]}),
    "starcoder2": ("starcoder2", _DENSE | _SLIDING),
    "gpt2": ("gpt2", _GPT2),
    "gpt2 of another width": ("gpt2", _GPT2 | {"n_inner": 40}),
    "gpt_bigcode": ("gpt_bigcode", _GPT2),
    "gpt_neox": ("gpt_neox", _OLD | {"intermediate_size": 56}),
    "phi": ("phi", _DENSE | {"num_key_value_heads": 4}),
    "opt": ("opt", _OLD | {"ffn_dim": 56, "word_embed_proj_dim": 32}),
    "falcon, one key head": ("falcon", _OLD),
    "falcon, grouped": ("falcon", _OLD | {"new_decoder_architecture": True, "num_kv_heads": 2, "bias": True}),
    "falcon, sequential": (
        "falcon",
        _OLD | {"multi_query": False, "parallel_attn": False, "alibi": True, "bias": True},
    ),
    "bloom": ("bloom", {"vocab_size": 96, "hidden_size": 32, "n_layer": 3, "n_head": 4}),
    "mixtral": ("mixtral", _DENSE | {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": None}),
    "qwen2_moe": ("qwen2_moe", _DENSE | _EXPERTS | {"shared_expert_intermediate_size": 44, "decoder_sparse_step": 2}),
    "qwen3_moe": ("qwen3_moe", _OWN_HEADS | _EXPERTS | {"mlp_only_layers": [1]}),
    "olmoe": ("olmoe", _DENSE | {"num_experts": 6, "num_experts_per_tok": 2}),
    "granitemoe": ("granitemoe", _DENSE | {"num_local_experts": 6, "num_experts_per_tok": 2}),
    "gpt_oss": ("gpt_oss", _OWN_HEADS | _SLIDING | {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "glm4_moe": (
        "glm4_moe",
        _OWN_HEADS
        | {
            "n_routed_experts": 6, "n_shared_experts": 1, "num_experts_per_tok": 2, "moe_intermediate_size": 20,
            "first_k_dense_replace": 1, "use_qk_norm": True, "n_group": 1, "topk_group": 1,
        },
    ),
    "deepseek_v2": ("deepseek_v2", _DENSE | _LATENT),
    "deepseek_v2 lite": ("deepseek_v2", _DENSE | _LATENT | {"q_lora_rank": None}),
    "deepseek_v3": ("deepseek_v3", _DENSE | _LATENT | {"num_nextn_predict_layers": 0}),
    "mamba": ("mamba", _STATE),
    "falcon_mamba": ("falcon_mamba", _STATE | {"time_step_rank": 5}),
    "mamba2": ("mamba2", _STATE | {"num_heads": 8, "head_dim": 8, "n_groups": 2, "chunk_size": CHUNK}),
    "jamba": (
        "jamba",
        _DENSE
        | {
            "num_experts": 4, "num_experts_per_tok": 2, "attn_layer_period": 3, "attn_layer_offset": 1,
            "expert_layer_period": 2, "expert_layer_offset": 1, "mamba_d_state": 8, "use_mamba_kernels": False,
        },
    ),
    "bamba": (
        "bamba",
        _DENSE
        | {
            "attn_layer_indices": [1], "mamba_n_heads": 8, "mamba_n_groups": 2, "mamba_d_state": 8,
            "mamba_d_head": 8, "mamba_chunk_size": CHUNK,
        },
    ),
}  # fmt: skip
