"""The catalogue: every metric's name, kind, labels, unit, buckets, meaning.

Nothing is exported that does not stand here. Unknown values are absent, never 0; a label that does not apply is `none`.
The order is the order of the exposition, and of who stays when the series budget is spent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from server.telemetry.efficiency_metrics import EFFICIENCY_METRICS
from server.telemetry.energy_metrics import ENERGY_METRICS
from server.telemetry.metric import CONFIGURATION, ENGINE, Metric, counter, gauge, histogram, info
from server.telemetry.quality_metrics import QUALITY_METRICS

__all__ = ["CATALOGUE"]

_TTFT = (
    0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0,
)  # fmt: skip
_PER_TOKEN = (
    0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0, 5.0,
)  # fmt: skip
_DURATION = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0)
_QUEUE = (0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_OVERHEAD = (0.0001, 0.0002, 0.0003, 0.0005, 0.00075, 0.001, 0.002, 0.003, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5)
_LAG = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0)
_REQUEST_JOULES = (
    0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 10_000.0,
)  # fmt: skip


# fmt: off
_TABLE: Final = (
    # self
    info("self", "wattgate_build_info", ("version", "python"),
        "The running Wattgate: its version and its Python's."),
    gauge("self", "wattgate_worker_up", ("worker",),
        "1 while the gateway worker of this slot is connected to the control plane, else 0."),
    histogram("self", "wattgate_event_loop_lag_seconds", ("process",),
        "How late an event loop was, measured ten times a second: worker-0 … of the gateway, and control.",
        buckets=_LAG),
    counter("self", "wattgate_records_dropped_total", (),
        "Request records that workers gave up because no control plane took them in time."),
    gauge("self", "wattgate_scrape_duration_seconds", (),
        "How long the exposition before this one took to make."),
    gauge("self", "wattgate_series", (),
        "Series in this exposition, process metrics not counted; at most telemetry.max_series."),
    gauge("self", "wattgate_series_left_out", (),
        "Series that the budget telemetry.max_series kept out of this exposition; "
        "whole families go."),
    # fleet
    info("fleet", "wattgate_engine_info", (*ENGINE, "quantization", "dtype", "engine_version", "device"),
        "What an engine is; join with group_left on engine. An empty label is unknown."),
    gauge("fleet", "wattgate_engine_state", (*ENGINE, "state"),
        "1 for the state that the engine is in, 0 for every other."),
    counter("fleet", "wattgate_engine_restarts_total", ENGINE,
        "Times that the engine was started again after it ended or hung."),
    counter("fleet", "wattgate_engine_ejections_total", (*ENGINE, "reason"),
        "Times that the engine was taken out of the routing. silent: no answer to health checks; failures: "
        "requests failed there; hung: it answers health checks and yields no token."),
    gauge("fleet", "wattgate_engine_requests_running", ENGINE,
        "Requests in the engine's running batch, as the engine says."),
    gauge("fleet", "wattgate_engine_requests_waiting", ENGINE,
        "Requests waiting inside the engine, as the engine says."),
    gauge("fleet", "wattgate_kv_cache_usage_ratio", ENGINE,
        "Share of the engine's KV cache blocks in use, 0 to 1."),
    counter("fleet", "wattgate_engine_prompt_tokens_total", ENGINE,
        "Prompt tokens by the engine's own count, traffic past the gateway included; restarts with the "
        "engine."),
    counter("fleet", "wattgate_engine_output_tokens_total", ENGINE,
        "Output tokens by the engine's own count, traffic past the gateway included; restarts with the "
        "engine."),
    counter("fleet", "wattgate_engine_preemptions_total", ENGINE,
        "Requests that the engine pushed out of its batch for want of KV cache."),
    counter("fleet", "wattgate_engine_prefix_cache_queries_total", ENGINE,
        "Prompt tokens looked up in the engine's prefix cache."),
    counter("fleet", "wattgate_engine_prefix_cache_hits_total", ENGINE,
        "Prompt tokens found in the engine's prefix cache."),
    gauge("fleet", "wattgate_model_parameters", ENGINE,
        "Weights of the checkpoint; scales and zero points are none, tied embeddings count once."),
    gauge("fleet", "wattgate_model_size_bytes", ENGINE,
        "All weight files of the checkpoint on disk."),
    gauge("fleet", "wattgate_model_bytes_per_weight", ENGINE,
        "Size on disk over parameters, the whole file; times 8 for bits (a base unit, as Prometheus wants it)."),
    gauge("fleet", "wattgate_model_linear_bytes_per_weight", ENGINE,
        "Bytes per weight of the linear layers alone, scales and zero points included; times 8 for bits."),
    gauge("fleet", "wattgate_adapter_loaded", CONFIGURATION,
        "1 if the adapter is loaded in the engine, 0 if it should be and is not; `other` counts the loaded "
        "ones."),
    gauge("fleet", "wattgate_adapter_load_seconds", CONFIGURATION,
        "How long the adapter's last load into the engine took."),
    # memory
    gauge("memory", "wattgate_memory_bytes", (*ENGINE, "kind"),
        "Memory of an engine. weights: its weight files; kv: KV cache blocks in use; kv_capacity: the whole "
        "KV cache; resident: proportional set size of its processes; device_used: GPU memory it holds. The "
        "kinds overlap: never add them."),
    # traffic
    counter("traffic", "wattgate_requests_total", (*CONFIGURATION, "outcome"),
        "Requests that ended, by how; engine `none`: it never reached one."),
    counter("traffic", "wattgate_tokens_total", (*CONFIGURATION, "kind"),
        "Tokens by the engine's usage: prompt, output, and cached (the part of prompt that the prefix cache "
        "held)."),
    counter("traffic", "wattgate_requests_without_usage_total", CONFIGURATION,
        "Requests that yielded tokens without a usage to count them by; their tokens are in no token counter."),
    counter("traffic", "wattgate_output_chunks_total", CONFIGURATION,
        "Streamed chunks with tokens, of requests with usage; below the output tokens where chunks hold "
        "several."),
    counter("traffic", "wattgate_tenant_requests_total", ("tenant", "outcome"),
        "Requests that ended, by tenant."),
    counter("traffic", "wattgate_tenant_tokens_total", ("tenant", "kind"),
        "Tokens by the engine's usage, by tenant; cached is part of prompt."),
    gauge("traffic", "wattgate_requests_in_flight", ENGINE,
        "Requests sent to the engine and not ended, over all workers."),
    gauge("traffic", "wattgate_queue_depth", (),
        "Requests waiting for admission, over all workers."),
    counter("traffic", "wattgate_admission_rejections_total", ("reason",),
        "Requests refused for load: by admission, or by a limit of their key (rate_limit_requests, "
        "rate_limit_tokens, concurrency)."),
    counter("traffic", "wattgate_retries_total", ("reason",),
        "Attempts at another replica, after one that failed before its first byte."),
    counter("traffic", "wattgate_cancelled_total", ("when",),
        "Requests whose client left: queued, before_first_token, or streaming."),
    counter("traffic", "wattgate_cancelled_tokens_spared_total", ("when",),
        "Output tokens that cancelled requests allowed (max_tokens) and that were not written: at most what leaving "
        "saved. Streams and queued requests only; of others nobody knows how many were written."),
    gauge("load", "wattgate_load_runs_active", (),
        "Load runs that a generator announced (POST /api/runs) and that go on."),
    counter("load", "wattgate_load_runs_total", (),
        "Load runs that were announced since the control plane started; GET /api/runs says which."),
    *ENERGY_METRICS,
    *EFFICIENCY_METRICS,
    *QUALITY_METRICS,
    # latency
    histogram("latency", "wattgate_time_to_first_token_seconds", CONFIGURATION,
        "Streams: from the request's arrival at the gateway to its first content, reasoning or tool-call "
        "token, queueing included.",
        buckets=_TTFT),
    histogram("latency", "wattgate_inter_token_latency_seconds", CONFIGURATION,
        "Streams: every gap between two chunks with tokens; per token where the engine sends one a chunk "
        "(compare wattgate_output_chunks_total with the output tokens).",
        buckets=_PER_TOKEN),
    histogram("latency", "wattgate_time_per_output_token_seconds", CONFIGURATION,
        "Streams, one value a completed request: (duration - time to first token) / (output tokens - 1).",
        buckets=_PER_TOKEN),
    histogram("latency", "wattgate_request_duration_seconds", CONFIGURATION,
        "Completed requests for inference: from arrival at the gateway to the last byte to the client.",
        buckets=_DURATION),
    histogram("latency", "wattgate_queue_time_seconds", CONFIGURATION,
        "Wait for admission, of requests that were sent to an engine or gave up waiting.",
        buckets=_QUEUE),
    histogram("latency", "wattgate_overhead_seconds", CONFIGURATION,
        "What the gateway added to a completed, unretried request: from arrival to sent, less the queue, plus "
        "from the engine's last byte to the client's; a client that is slow to send or read counts in.",
        buckets=_OVERHEAD),
    # energy
    histogram("energy", "wattgate_request_energy_joules", CONFIGURATION,
        "Joules attributed to a completed request, over all devices it used; known once its windows are "
        "closed.",
        buckets=_REQUEST_JOULES),
)
# fmt: on

CATALOGUE: Final[Mapping[str, Metric]] = {metric.name: metric for metric in _TABLE}
