"""The demo model's shape: small, and such that every kernel accepts it."""

from __future__ import annotations

from transformers import LlamaConfig, LlamaForCausalLM

__all__ = ["new_model"]


def new_model(vocabulary: int, end_id: int, pad_id: int) -> LlamaForCausalLM:
    """A Llama with random weights: 4.2 M parameters, embeddings tied to the output.

    Every inner dimension is a multiple of 128, so int4 groups of 32, 64 and 128 all fit.
    """
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=end_id,
        eos_token_id=end_id,
        pad_token_id=pad_id,
    )
    return LlamaForCausalLM(config)
