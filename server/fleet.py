"""What the control plane knows of each replica: one frozen value a replica."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from server.models.card import ModelCard
from server.units import Seconds

__all__ = ["SERVING", "Ejection", "EngineGauges", "EngineState", "Replica"]


class EngineState(StrEnum):
    """The life of a replica; a closed vocabulary, it is a metric label."""

    PENDING = "pending"
    """Waits for its turn to start."""
    STARTING = "starting"
    READY = "ready"
    SUSPECT = "suspect"
    """Serves as before, but failed just now: it is looked at more closely."""
    UNHEALTHY = "unhealthy"
    """Runs, but was ejected: it gets no requests."""
    HALF_OPEN = "half_open"
    """Was ejected and seems well again: it gets a few requests as a trial."""
    DRAINING = "draining"
    """Serves what it has and gets nothing new: it is about to be ended."""
    BACKOFF = "backoff"
    """Ended; starts again after a wait."""
    FAILED = "failed"
    """Given up; `problem` says why."""
    STOPPED = "stopped"


SERVING: Final = frozenset({EngineState.READY, EngineState.SUSPECT, EngineState.HALF_OPEN})
"""The states in which a replica gets requests."""


class Ejection(StrEnum):
    """Why a replica was ejected; a closed vocabulary, it is a metric label."""

    SILENT = "silent"
    """It did not answer its health checks."""
    FAILURES = "failures"
    """Requests failed there."""
    HUNG = "hung"
    """It answers its health checks and yields no token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineGauges:
    """What an engine says of itself on its own metrics endpoint; None where it does not say."""

    running: int | None
    waiting: int | None
    kv_usage_ratio: float | None
    """Of the KV blocks, 0 … 1."""
    kv_capacity_tokens: int | None
    prompt_tokens_total: int | None
    output_tokens_total: int | None
    prefix_cache_queries_total: int | None
    prefix_cache_hits_total: int | None
    preemptions_total: int | None
    steps_total: int | None = None
    """Steps of its scheduler that computed something."""
    estimated_flops_per_gpu_total: float | None = None
    """By its own count, the mean of its cores; on a CPU, of the whole engine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replica:
    """One replica as it stands now."""

    name: str
    model: str
    """The base model's public id."""
    variant: str
    precision: str
    task: str
    kind: str
    """The engine's make: `vllm`, `openai`."""
    launcher: str
    state: EngineState
    since: Seconds
    """Monotonic time of the last change of `state`."""
    url: str | None
    """`http://host:port`, without `/v1`; None before it is known."""
    api_key: str | None
    upstream_model: str
    """What the replica calls the base model in this variant."""
    max_model_len: int | None
    adapters: frozenset[str]
    """Names of the adapters that are loaded."""
    restarts: int
    pid: int | None
    """The root of the engine's process tree; None if it runs elsewhere."""
    device: str
    """`cpu`, `gpu:0`, `gpu:0,1`; `remote` if it runs elsewhere."""
    cores: frozenset[int]
    card: ModelCard | None
    engine_version: str | None
    problem: str | None
    """Why it is not ready, in plain words, with what to do; None while all is well."""
    log_path: str | None
    memory_bytes: int | None
    """Proportional set size of the process tree (CPU) or device memory it holds (GPU)."""
    gauges: EngineGauges | None
    ejections: Mapping[Ejection, int] = field(default_factory=dict)
    """Since the control plane started."""
