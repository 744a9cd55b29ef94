"""PromQL of what engines say of themselves, and of adapters."""

from __future__ import annotations

from grafana.queries.query import (
    BY_CONFIGURATION,
    ENGINE,
    FAILED,
    RATE_WINDOW,
    TRAFFIC,
    Query,
    by_label,
    legend,
    max_by,
    sum_by,
)

__all__ = [
    "adapter_load_seconds",
    "adapter_requests",
    "adapter_tokens",
    "adapter_ttft",
    "adapters_loaded",
    "efficiency",
    "failures",
    "flops",
    "kv_usage",
    "mbu",
    "mfu",
    "preemptions",
    "prefix_hit_ratio",
    "quality",
    "replicas_serving",
    "restarts",
    "running",
    "waiting",
]


def kv_usage() -> Query:
    """Share of the KV cache in use."""
    return _of_engine("wattgate_kv_cache_usage_ratio")


def running() -> Query:
    """Requests in the batch."""
    return _of_engine("wattgate_engine_requests_running")


def waiting() -> Query:
    """Requests that wait inside the engine."""
    return _of_engine("wattgate_engine_requests_waiting")


def preemptions() -> Query:
    """Requests pushed out of the batch, a second."""
    return by_label(f"rate(wattgate_engine_preemptions_total{{{ENGINE}}}[{RATE_WINDOW}])", "engine")


def prefix_hit_ratio() -> Query:
    """Prompt tokens found in the prefix cache, of those looked up."""
    hits = f"rate(wattgate_engine_prefix_cache_hits_total{{{ENGINE}}}[{RATE_WINDOW}])"
    asked = f"rate(wattgate_engine_prefix_cache_queries_total{{{ENGINE}}}[{RATE_WINDOW}])"
    return by_label(f"{hits} / ({asked} > 0)", "engine")


def mfu() -> Query:
    """Model FLOPs utilization."""
    return Query(expr=f"wattgate_mfu_ratio{{{ENGINE}}}", legend="{{engine}} MFU")


def mbu() -> Query:
    """Memory bandwidth utilization."""
    return Query(expr=f"wattgate_mbu_ratio{{{ENGINE}}}", legend="{{engine}} MBU")


def flops() -> Query:
    """Floating-point operations a second, by phase."""
    by = ("engine", "phase")
    return by_label(sum_by(by, f"rate(wattgate_model_flops_total{{{ENGINE}}}[{RATE_WINDOW}])"), *by)


def restarts() -> Query:
    """Starts after an end or a hang, in the range that is shown."""
    return by_label(f"increase(wattgate_engine_restarts_total{{{ENGINE}}}[$__range])", "engine")


def failures() -> Query:
    """Failed requests a second, by engine and outcome."""
    by = ("engine", "outcome")
    rate = f'rate(wattgate_requests_total{{{TRAFFIC},outcome=~"{FAILED}|ok"}}[{RATE_WINDOW}])'
    return by_label(sum_by(by, rate), *by)


def replicas_serving() -> Query:
    """Replicas that take requests, a configuration."""
    states = f'wattgate_engine_state{{{ENGINE},state=~"ready|suspect|half_open"}}'
    return Query(expr=sum_by(BY_CONFIGURATION, states), legend=legend(BY_CONFIGURATION))


def efficiency(metric: str) -> Query:
    """One of the gauges of `wattgate_efficientllm_*`: its mean over a configuration's replicas and adapters."""
    by = ", ".join(BY_CONFIGURATION)
    return Query(expr=f"avg by ({by}) ({metric}{{{ENGINE}}})", legend=legend(BY_CONFIGURATION))


def quality(metric: str) -> Query:
    """One of the gauges of `wattgate_quality_*`; offline and served ones agree within their noise."""
    return Query(expr=max_by(BY_CONFIGURATION, f"{metric}{{{ENGINE}}}"), legend=legend(BY_CONFIGURATION))


def adapters_loaded() -> Query:
    """1 if loaded, 0 if it should be and is not."""
    return by_label(f"wattgate_adapter_loaded{{{ENGINE}}}", "engine", "adapter")


def adapter_load_seconds() -> Query:
    """How long the last load took."""
    return by_label(f"wattgate_adapter_load_seconds{{{ENGINE}}}", "engine", "adapter")


def adapter_requests() -> Query:
    """Requests a second, by adapter."""
    rate = f"rate(wattgate_requests_total{{{TRAFFIC}}}[{RATE_WINDOW}])"
    return by_label(f"sum by (adapter) ({rate})", "adapter")


def adapter_tokens() -> Query:
    """Output tokens a second, by adapter."""
    rate = f'rate(wattgate_tokens_total{{{TRAFFIC},kind="output"}}[{RATE_WINDOW}])'
    return by_label(f"sum by (adapter) ({rate})", "adapter")


def adapter_ttft(q: float) -> Query:
    """The q-quantile of the time to first token, by adapter; seconds."""
    rate = f"rate(wattgate_time_to_first_token_seconds_bucket{{{TRAFFIC}}}[{RATE_WINDOW}])"
    return Query(expr=f"histogram_quantile({q}, sum by (le, adapter) ({rate}))", legend=f"{{{{adapter}}}} p{q * 100:g}")


def _of_engine(gauge: str) -> Query:
    return by_label(f"{gauge}{{{ENGINE}}}", "engine")
