"""Reads vLLM's metrics text, by its old names and its new ones."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from server.fleet import EngineGauges

__all__ = ["read_gauges"]

_RUNNING: Final = ("vllm:num_requests_running",)
_WAITING: Final = ("vllm:num_requests_waiting",)
_KV_USAGE: Final = ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc")
_PROMPT_TOKENS: Final = ("vllm:prompt_tokens_total", "vllm:prompt_tokens")
_OUTPUT_TOKENS: Final = ("vllm:generation_tokens_total", "vllm:generation_tokens")
_QUERIES: Final = (
    "vllm:prefix_cache_queries_total",
    "vllm:prefix_cache_queries",
    "vllm:gpu_prefix_cache_queries_total",
    "vllm:gpu_prefix_cache_queries",
)
_HITS: Final = (
    "vllm:prefix_cache_hits_total",
    "vllm:prefix_cache_hits",
    "vllm:gpu_prefix_cache_hits_total",
    "vllm:gpu_prefix_cache_hits",
)
_PREEMPTIONS: Final = ("vllm:num_preemptions_total", "vllm:num_preemptions")
_STEPS: Final = ("vllm:iteration_tokens_total_count",)
"""A histogram of the tokens of each step: its count is the number of steps."""
_FLOPS: Final = ("vllm:estimated_flops_per_gpu_total",)
"""Only of an engine that was started with --enable-mfu-metrics."""
_CACHE_CONFIG: Final = "vllm:cache_config_info"

_WANTED: Final = frozenset(
    [
        *_RUNNING,
        *_WAITING,
        *_KV_USAGE,
        *_PROMPT_TOKENS,
        *_OUTPUT_TOKENS,
        *_QUERIES,
        *_HITS,
        *_PREEMPTIONS,
        *_STEPS,
        *_FLOPS,
    ]
)
_LABEL: Final = re.compile(r'(block_size|num_gpu_blocks)="(\d+)"')


def read_gauges(text: str) -> EngineGauges:
    """The gauges of all engine cores behind one port: counts add up, usage and FLOPs a GPU are their means."""
    found, capacity = _scan(text)
    return EngineGauges(
        running=_total(_first(found, _RUNNING)),
        waiting=_total(_first(found, _WAITING)),
        kv_usage_ratio=_mean(_first(found, _KV_USAGE)),
        kv_capacity_tokens=capacity,
        prompt_tokens_total=_total(_first(found, _PROMPT_TOKENS)),
        output_tokens_total=_total(_first(found, _OUTPUT_TOKENS)),
        prefix_cache_queries_total=_total(_first(found, _QUERIES)),
        prefix_cache_hits_total=_total(_first(found, _HITS)),
        preemptions_total=_total(_first(found, _PREEMPTIONS)),
        steps_total=_total(_first(found, _STEPS)),
        estimated_flops_per_gpu_total=_mean(_first(found, _FLOPS)),
    )


def _scan(text: str) -> tuple[dict[str, list[float]], int | None]:
    """One pass: nearly all lines are histogram buckets, of which only the name is looked at."""
    found: dict[str, list[float]] = {}
    capacity: int | None = None
    for line in text.split("\n"):
        if not line.startswith("vllm:"):
            continue
        name = line.partition("{")[0].partition(" ")[0]
        if name in _WANTED:
            value = _number(line)
            if value is not None:
                found.setdefault(name, []).append(value)
        elif name == _CACHE_CONFIG:
            capacity = _add(capacity, _capacity(line))
    return found, capacity


def _number(line: str) -> float | None:
    """The sample's value (label values may hold spaces); None for NaN and for what is no number."""
    fields = line.rpartition("}")[2].split() if "}" in line else line.split()[1:]
    try:
        value = float(fields[0])
    except (IndexError, ValueError):
        return None
    return value if value == value and abs(value) != float("inf") else None  # noqa: PLR0124  # NaN


def _capacity(line: str) -> int | None:
    labels = dict(_LABEL.findall(line))
    if len(labels) != 2:
        return None
    return int(labels["block_size"]) * int(labels["num_gpu_blocks"])


def _add(total: int | None, value: int | None) -> int | None:
    return total if value is None else (total or 0) + value


def _first(found: dict[str, list[float]], names: Iterable[str]) -> list[float] | None:
    return next((found[name] for name in names if name in found), None)


def _total(values: list[float] | None) -> int | None:
    return None if values is None else round(sum(values))


def _mean(values: list[float] | None) -> float | None:
    return None if values is None else sum(values) / len(values)
