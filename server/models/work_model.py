"""What a model's work costs: FLOPs of tokens, bytes that its steps must read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from server.models.card import ModelCard
from server.models.flops import FlopModel, Work
from server.models.weight_bytes import WeightBytes

__all__ = ["WorkModel", "work_model"]

_BITS: Final[Mapping[str, int]] = {
    "bfloat16": 16, "float16": 16, "half": 16, "float32": 32, "float": 32,
    "fp8": 8, "fp8_e4m3": 8, "fp8_e5m2": 8, "fp8_inc": 8, "int8": 8,
}  # fmt: skip
"""Of vLLM's `--dtype` and `--kv-cache-dtype`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkModel:
    """The coefficients of one served configuration: a checkpoint and the engine's types."""

    flops: FlopModel
    weights: WeightBytes
    kv_value_bytes: float
    """Of one number in the KV cache."""
    state_bytes_per_sequence: float
    """Held by recurrent layers for a sequence, however long it is; 0: there are none."""

    @property
    def kv_bytes_per_token_of_context(self) -> float:
        """Within the windows; a decode step reads it for each token of each sequence's context."""
        return self.kv_value_bytes * sum(group.cached_values for group in self.flops.attention)

    def weight_bytes_per_step(self, tokens: float) -> float:
        """Read by a step that computes `tokens` tokens: when decoding, one a sequence."""
        return self.weights.per_step(tokens)

    def decode_step_bytes(self, *, sequences: float, context_tokens: float) -> float:
        """Read by one decode step over `sequences` sequences with `context_tokens` tokens in all of their contexts.

        Weights + KV of all contexts + states. Activations and what is written (a token's KV) are left out: small.
        """
        return (
            self.weight_bytes_per_step(sequences)
            + self._kv_bytes(context_tokens, sequences)
            + self.state_bytes_per_sequence * sequences
        )

    def read_bytes(self, work: Work, *, steps: float) -> float:
        """Read by `steps` steps that did this work, batches taken as equal.

        KV counts for decoded tokens only: a prompt's is read once for many of its tokens, which is little.
        """
        if steps <= 0:
            return 0.0
        tokens = work.prompt_tokens + work.decode_tokens
        return (
            steps * self.weight_bytes_per_step(tokens / steps)
            + self._kv_bytes(work.decode_pairs, work.decode_tokens)
            + self.state_bytes_per_sequence * work.decode_tokens
        )

    def _kv_bytes(self, pairs: float, tokens: float) -> float:
        return self.kv_value_bytes * sum(
            group.cached_values * group.bounded(pairs, tokens) for group in self.flops.attention
        )


def work_model(card: ModelCard, *, dtype: str | None = None, kv_cache_dtype: str | None = None) -> WorkModel | None:
    """None if the architecture, or a type's width, is unknown. `dtype`, `kv_cache_dtype`: the engine's options.

    An engine that is told another `dtype` converts what is not quantized: an unquantized checkpoint's bytes change
    with it.
    """
    own = _BITS.get(card.dtype)
    served = own if dtype in {None, "auto"} else _BITS.get(dtype or "")
    kv_bits = (card.kv_bits or served) if kv_cache_dtype in {None, "auto"} else _BITS.get(kv_cache_dtype or "")
    if card.shape is None or card.weight_bytes is None or own is None or served is None or kv_bits is None:
        return None
    weights = card.weight_bytes
    if served != own and card.quantization == "none":
        weights = weights.scaled(served / own)
    return WorkModel(
        flops=FlopModel.of(card.shape),
        weights=weights,
        kv_value_bytes=kv_bits / 8,
        state_bytes_per_sequence=card.shape.state_values_per_sequence * served / 8,
    )
