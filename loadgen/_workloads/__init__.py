"""What requests ask for: one file per workload, and this table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from loadgen._workloads._drawn import chat, code, long_context, summarise
from loadgen._workloads._embeddings import Embeddings
from loadgen._workloads._fixed import Fixed
from loadgen._workloads._jsonl import Jsonl
from loadgen._workloads._multi_turn import MultiTurn
from loadgen._workloads._rag import Rag
from loadgen._workloads._shared_prefix import SharedPrefix
from loadgen._workloads._trace import Trace
from loadgen._workloads._workload import Ask, Workload, WorkloadFactory

__all__ = ["WORKLOADS", "Ask", "Workload", "WorkloadFactory"]

WORKLOADS: Final[Mapping[str, WorkloadFactory]] = {
    "fixed": Fixed,
    "chat": chat,
    "code": code,
    "long-context": long_context,
    "shared-prefix": SharedPrefix,
    "multi-turn": MultiTurn,
    "summarise": summarise,
    "rag": Rag,
    "embeddings": Embeddings,
    "jsonl": Jsonl,
    "trace": Trace,
}
"""What `--workload` may name."""
