"""How much memory a CPU engine will take, asked before it is started.

A vLLM process on the CPU that serves a 7 M-parameter model with 1 GiB of KV cache takes 2.3 GB (its proportional share;
three at once, 7.1 GB) to 2.9 GB (resident, alone): 1.2 to 1.8 GB beyond cache and weights, most of it libraries that
engines share. Measured with vLLM 0.32, eager mode.
"""

from __future__ import annotations

from typing import Final

from server.errors import StartError
from server.models.card import ModelCard
from server.models.checkpoint import Checkpoint
from server.models.weights import LayerKind
from server.units import Bytes

__all__ = ["CPU_RUNTIME_BYTES", "check_memory", "memory_needed_bytes"]

CPU_RUNTIME_BYTES: Final = Bytes(1_200_000_000)
"""What a vLLM process on the CPU takes besides weights and KV cache."""
_GIB: Final = 2**30
_ADAPTER_VALUE_BYTES: Final = 2


def memory_needed_bytes(
    card: ModelCard | Checkpoint, *, kv_cache_gib: float = 1.0, max_rank: int = 0, max_loaded: int = 0
) -> Bytes:
    """Weights + KV cache + adapter slots + the process itself, for one engine on the CPU.

    vLLM reserves the adapters' slots at start: max_loaded · max_rank · Σ (d_in + d_out) over the linear layers, 2 bytes
    each; a bare card does not know the layers, so that term needs a `Checkpoint`.
    """
    facts = card.card if isinstance(card, Checkpoint) else card
    slots = 0
    if isinstance(card, Checkpoint):
        shapes = (layer.shape for layer in card.layers.values() if layer.kind is LayerKind.LINEAR)
        sides = sum(sum(shape) for shape in shapes if shape is not None)
        slots = max_loaded * max_rank * sides * _ADAPTER_VALUE_BYTES
    return Bytes(facts.size_bytes + int(kv_cache_gib * _GIB) + slots + CPU_RUNTIME_BYTES)


def check_memory(needed: Bytes, available: Bytes) -> None:
    """Raise `StartError` if a start would need more than the machine has free."""
    if needed > available:
        raise StartError(
            f"Not enough memory: {needed / _GIB:.1f} GiB needed (weights, KV cache and the engine's process), "
            f"{available / _GIB:.1f} GiB available. Lower `options.kv_cache_gib`, serve fewer engines or a variant of "
            "fewer bits, or stop other programs."
        )
