"""Every rule of "can this engine serve that", as two tables.

A new rule is one function beside the others and one entry here; the order is the order of the checks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from server.models import adapter_rules as of_adapters
from server.models import checkpoint_rules as of_checkpoints
from server.models.adapter import AdapterCard
from server.models.adapter_rules import AdapterCase
from server.models.card import ModelCard
from server.models.checkpoint import Checkpoint
from server.models.checkpoint_rules import CheckpointCase
from server.models.device import DeviceFacts
from server.models.rule import Rule, enforce

__all__ = ["ADAPTER_RULES", "CHECKPOINT_RULES", "check_adapter", "check_checkpoint"]

CHECKPOINT_RULES: Final[Mapping[str, Rule[CheckpointCase]]] = {
    "no-loader": of_checkpoints.NO_LOADER,
    "sparse-weights": of_checkpoints.SPARSE_WEIGHTS,
    "cpu-fp4": of_checkpoints.CPU_FP4,
    "cpu-weight-only-int": of_checkpoints.CPU_WEIGHT_ONLY_INT,
    "cpu-weight-only-fp8": of_checkpoints.CPU_WEIGHT_ONLY_FP8,
    "cpu-int4-avx512": of_checkpoints.CPU_INT4_AVX512,
    "cpu-int4-shape": of_checkpoints.CPU_INT4_SHAPE,
    "cpu-fp8-scales": of_checkpoints.CPU_FP8_SCALES,
    "cpu-fp8-kv": of_checkpoints.CPU_FP8_KV,
    "cpu-w8a8-adapters": of_checkpoints.CPU_W8A8_ADAPTERS,
    "cuda-capability": of_checkpoints.CUDA_CAPABILITY,
    "cuda-bf16": of_checkpoints.CUDA_BF16,
    "cuda-memory": of_checkpoints.CUDA_MEMORY,
}

ADAPTER_RULES: Final[Mapping[str, Rule[AdapterCase]]] = {
    "adapter-kind": of_adapters.KIND,
    "adapter-dora": of_adapters.DORA,
    "adapter-init": of_adapters.INIT,
    "adapter-modules-to-save": of_adapters.MODULES_TO_SAVE,
    "adapter-feature": of_adapters.FEATURE,
    "adapter-tensors": of_adapters.TENSORS,
    "cpu-w8a8-adapters": of_adapters.CPU_W8A8,
    "adapters-off": of_adapters.OFF,
    "adapter-rank": of_adapters.RANK,
    "adapter-base": of_adapters.BASE,
}


def check_checkpoint(
    card: ModelCard | Checkpoint, device: DeviceFacts, *, dtype: str | None = None, adapters: bool = False
) -> None:
    """Raise `IncompatibleError` if vLLM could not serve the checkpoint on the device. Reads no file.

    A `Checkpoint` (from `read_checkpoint`) is checked by layer shapes, too; of a bare card they are unknown.
    `dtype` is the engine's option (None or `auto`: the checkpoint's); `adapters`: the engine is to take adapters.
    """
    checkpoint = card if isinstance(card, Checkpoint) else None
    case = CheckpointCase(
        card=card.card if isinstance(card, Checkpoint) else card,
        checkpoint=checkpoint,
        device=device,
        dtype=None if dtype == "auto" else dtype,
        adapters=adapters,
    )
    enforce(CHECKPOINT_RULES, case)


def check_adapter(
    adapter: AdapterCard, card: ModelCard | Checkpoint | None, *, max_rank: int | None, device: DeviceFacts | None
) -> None:
    """Raise `IncompatibleError` if the engine that serves `card` could not load the adapter. Reads no file.

    `max_rank` is the engine's `adapters.max_rank`, None if it takes no adapters. `card` and `device` may be None for an
    engine that runs elsewhere: what they would tell is then not checked.
    """
    case = AdapterCase(
        adapter=adapter,
        card=card.card if isinstance(card, Checkpoint) else card,
        checkpoint=card if isinstance(card, Checkpoint) else None,
        max_rank=max_rank,
        device=device,
    )
    enforce(ADAPTER_RULES, case)
