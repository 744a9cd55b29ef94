"""Floating-point operations that tokens need, by architecture and context.

A multiplication and an addition are two. Counted: every matrix, attention's two products, the convolution and the scan
of a state space. Not counted, like everywhere in the field: norms, activations, softmax, rotary embeddings, biases.

    matrices     2 · Σ d_in · d_out                    a token; of experts those that it passes
    attention    2 · heads · (key_dim + value_dim)     a token and a token it attends to, itself included
    unembedding  2 · D · V                             a sampled position: one a prompt, one a decoded token

A prompt of P tokens behind C cached ones makes Σ (C + i), i = 1 … P, pairs: the causal half, exactly.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import NamedTuple, Self

from server.models.adapter import LORA_KINDS, AdapterCard
from server.models.architecture import Architecture

__all__ = ["AttentionFlops", "FlopModel", "PhaseFlops", "Work", "adapter_flops_per_token", "attended_pairs"]


class PhaseFlops(NamedTuple):
    """FLOPs by phase."""

    prefill: float
    decode: float

    @property
    def total(self) -> float:
        return self.prefill + self.decode


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What was computed, by one request or by an engine over some time: sums, so they can be added up."""

    prompt_tokens: float = 0
    """Computed: not those from the prefix cache."""
    prompt_pairs: float = 0
    """Σ over these tokens of how many tokens each attends to, itself included, as if there was no window."""
    prompts: float = 0
    """Prompts that came to their end: each samples one position, the first output token."""
    decode_tokens: float = 0
    """Tokens that decode steps computed: a request's output tokens but the last, which is sampled and never fed."""
    decode_pairs: float = 0
    """Σ over these of how many tokens each attends to."""

    @classmethod
    def of_request(cls, *, prompt_tokens: int, cached_tokens: int = 0, output_tokens: int) -> Self:
        """A whole request, all its sums exact."""
        computed, decoded = max(prompt_tokens - cached_tokens, 0), max(output_tokens - 1, 0)
        return cls(
            prompt_tokens=computed,
            prompt_pairs=attended_pairs(computed, before=prompt_tokens - computed),
            prompts=min(output_tokens, 1),
            decode_tokens=decoded,
            decode_pairs=attended_pairs(decoded, before=prompt_tokens),
        )

    def __add__(self, other: Work) -> Work:
        return Work(
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            prompt_pairs=self.prompt_pairs + other.prompt_pairs,
            prompts=self.prompts + other.prompts,
            decode_tokens=self.decode_tokens + other.decode_tokens,
            decode_pairs=self.decode_pairs + other.decode_pairs,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionFlops:
    """All layers that look back equally far, together."""

    window: int | None
    prefill_flops_per_pair: int
    decode_flops_per_pair: int
    cached_values: int
    """Numbers that a token leaves in their caches."""

    def bounded(self, pairs: float, tokens: float) -> float:
        """`pairs` of `tokens` tokens within the window, by their mean: exact if they all lie on one side of it."""
        return pairs if self.window is None else min(pairs, tokens * self.window)


@dataclass(frozen=True, slots=True, kw_only=True)
class FlopModel:
    """The coefficients of an architecture. Every method is a handful of multiplications."""

    linear_flops_per_token: int
    """All matrices of the blocks."""
    recurrence_flops_per_token: int
    """Convolution and scan of state spaces."""
    unembed_flops_per_position: int
    attention: tuple[AttentionFlops, ...]
    """One entry a window; one in all for most models."""

    @classmethod
    def of(cls, architecture: Architecture) -> Self:
        blocks = architecture.blocks
        return cls(
            linear_flops_per_token=sum(linear.flops_per_token for block in blocks for linear in block.linears),
            recurrence_flops_per_token=sum(b.recurrence.flops_per_token for b in blocks if b.recurrence),
            unembed_flops_per_position=architecture.head.flops_per_token,
            attention=_by_window(architecture),
        )

    def flops_per_token(self, context: int) -> int:
        """Of one decoded token that attends to `context` tokens, itself included."""
        return self.decode_flops(1, before=max(context - 1, 0))

    def prefill_flops(self, tokens: int, *, before: int = 0, sampled: int = 1) -> int:
        """Of a prompt, or of a chunk of it: `tokens` computed, `before` already in the cache. Exact."""
        pairs = sum(
            group.prefill_flops_per_pair * attended_pairs(tokens, before=before, window=group.window)
            for group in self.attention
        )
        return tokens * self._flops_per_fed_token + pairs + sampled * self.unembed_flops_per_position

    def decode_flops(self, tokens: int, *, before: int) -> int:
        """Of `tokens` successive tokens of one sequence, the first of which has `before` tokens before it. Exact."""
        pairs = sum(
            group.decode_flops_per_pair * attended_pairs(tokens, before=before, window=group.window)
            for group in self.attention
        )
        return tokens * (self._flops_per_fed_token + self.unembed_flops_per_position) + pairs

    def request_flops(self, *, prompt_tokens: int, cached_tokens: int = 0, output_tokens: int) -> PhaseFlops:
        """Of a whole request. Exact, if the engine computed nothing twice (preemption) and drafted nothing."""
        computed = max(prompt_tokens - cached_tokens, 0)
        return PhaseFlops(
            self.prefill_flops(computed, before=prompt_tokens - computed, sampled=min(output_tokens, 1)),
            self.decode_flops(max(output_tokens - 1, 0), before=prompt_tokens),
        )

    def flops(self, work: Work) -> PhaseFlops:
        """Of sums over many requests. Exact without windows; with them an upper bound, see `AttentionFlops.bounded`."""
        prefill = work.prompt_tokens * self._flops_per_fed_token + work.prompts * self.unembed_flops_per_position
        decode = work.decode_tokens * (self._flops_per_fed_token + self.unembed_flops_per_position)
        for group in self.attention:
            prefill += group.prefill_flops_per_pair * group.bounded(work.prompt_pairs, work.prompt_tokens)
            decode += group.decode_flops_per_pair * group.bounded(work.decode_pairs, work.decode_tokens)
        return PhaseFlops(prefill, decode)

    @property
    def _flops_per_fed_token(self) -> int:
        return self.linear_flops_per_token + self.recurrence_flops_per_token


def attended_pairs(tokens: int, *, before: int, window: int | None = None) -> int:
    """Σ min(before + i, window) over i = 1 … tokens: how many tokens all of them together attend to."""
    growing = tokens if window is None else min(max(window - before, 0), tokens)
    bounded = 0 if window is None else (tokens - growing) * window
    return growing * before + growing * (growing + 1) // 2 + bounded


def adapter_flops_per_token(adapter: AdapterCard) -> int | None:
    """What a LoRA adapter adds to each token: 2 · Σ rank · (d_in + d_out); None where its layers are unknown."""
    if adapter.kind not in LORA_KINDS or not adapter.layers:
        return None
    return sum(2 * layer.rank * (layer.d_in + layer.d_out) for layer in adapter.layers)


def _by_window(architecture: Architecture) -> tuple[AttentionFlops, ...]:
    sums: dict[int | None, list[int]] = defaultdict(lambda: [0, 0, 0])
    for block in architecture.blocks:
        if (layer := block.attention) is not None:
            found = sums[layer.window]
            found[0] += layer.prefill_flops_per_pair
            found[1] += layer.decode_flops_per_pair
            found[2] += layer.cached_values
    return tuple(
        AttentionFlops(window=window, prefill_flops_per_pair=a, decode_flops_per_pair=b, cached_values=c)
        for window, (a, b, c) in sums.items()
    )
