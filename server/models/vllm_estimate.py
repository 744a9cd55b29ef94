"""Where vLLM's own count of FLOPs and bytes is known to be wrong.

vLLM counts `vllm:estimated_flops_per_gpu_total` and `vllm:estimated_read_bytes_per_gpu_total` when it is started with
`--enable-mfu-metrics`. Source of every line here: `vllm/v1/metrics/perf.py` of vLLM 0.32.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from server.models.architecture import Architecture
from server.models.card import ModelCard

__all__ = ["vllm_estimate_support"]

_COUNTED_BITS: Final[Mapping[str, int]] = {
    "compressed-tensors": 4, "awq": 4, "awq_marlin": 4, "gptq": 4, "gptq_marlin": 4, "mxfp4": 4, "modelopt_fp4": 4,
    "fp8": 8, "fbgemm_fp8": 8, "modelopt": 8,
}  # fmt: skip
"""Bits a weight by method, whatever the checkpoint holds; of other methods attention and feed-forward are dropped."""
_TOLERANCE: Final = 0.2
"""Scales and zero points beside 4-bit weights take up to 12 %."""


def vllm_estimate_support(card: ModelCard, *, adapters: bool = False) -> str | None:
    """Why vLLM's estimate cannot be trusted for this checkpoint; None: nothing is known against it.

    `adapters`: some of the engine's requests use LoRA. Everywhere, vLLM counts the whole square of a prompt's attention
    instead of its causal half; that is a convention, and stands in no reason.
    """
    reasons = [*_of_weights(card), *_of_shape(card.shape)]
    if adapters:
        reasons.append("adapters are not counted")
    return "; ".join(reasons) or None


def _of_weights(card: ModelCard) -> Iterator[str]:
    if card.quantization == "none":
        return
    counted, stored = _COUNTED_BITS.get(card.quantization), card.linear_bits_per_weight
    if counted is None:
        yield f"attention and feed-forward parts of {card.quantization} checkpoints are not counted"
    elif stored is None or abs(stored / counted - 1) > _TOLERANCE:
        found = "an unknown number" if stored is None else f"{stored:.1f}"
        yield f"bytes are counted at {counted} bits a weight, the checkpoint has {found}"


def _of_shape(shape: Architecture | None) -> Iterator[str]:
    """The estimate takes every layer for attention and a gated feed-forward part, or experts in every layer."""
    if shape is None:
        yield "the architecture is unknown here, so nothing checks the estimate"
        return
    if any(block.attention is None for block in shape.blocks):
        yield "state-space layers are counted as attention or not at all"
    if shape.family in _PLAIN:
        yield "feed-forward parts of two matrices are counted as three"
    if shape.family in _SHARED_UNCOUNTED:
        yield "the shared expert is not counted"
    sparse = {any(linear.routed for linear in block.linears) for block in shape.blocks}
    if len(sparse) == 2 and shape.family not in _MIXED_COUNTED:
        yield "layers without experts are counted as if they had them"


_PLAIN: Final = frozenset({"gpt2", "gpt_bigcode", "gpt_neox", "phi", "opt", "falcon", "bloom", "starcoder2"})
_SHARED_UNCOUNTED: Final = frozenset({"qwen2_moe"})
_MIXED_COUNTED: Final = frozenset({"deepseek_v2", "deepseek_v3", "kimi_k2"})
