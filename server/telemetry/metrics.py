"""The catalogue: every metric's name, kind, labels, unit, buckets, meaning.

Nothing is exported that does not stand here. Unknown values are absent, never 0; a label that does not apply is `none`.
The order is the order of the exposition, and of who stays when the series budget is spent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Final

__all__ = ["CATALOGUE", "CONFIGURATION", "ENGINE", "UNITS", "Kind", "Metric"]

UNITS: Final = frozenset({"seconds", "bytes", "joules", "tokens", "ratio"})


class Kind(StrEnum):
    """The types of the exposition formats that are used here."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"
    INFO = "info"


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One metric family; `name` is the whole name as PromQL writes it (for a histogram, without `_bucket`)."""

    name: str
    group: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    """Upper bounds without +Inf, in `unit`; only histograms have them."""

    @property
    def unit(self) -> str | None:
        """The base unit that the name ends with; None: a plain count."""
        word = self.name.removesuffix("_total").rpartition("_")[2]
        return word if word in UNITS else None


ENGINE: Final = ("engine", "model", "variant", "precision")
"""Who served: replica, base model, variant, precision."""
CONFIGURATION: Final = (*ENGINE, "adapter")
"""What is compared: a replica and the adapter on it (`none`: the base model)."""

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


def _metric(
    kind: Kind, group: str, name: str, labels: tuple[str, ...], *text: str, buckets: tuple[float, ...] = ()
) -> Metric:
    return Metric(name=name, group=group, kind=kind, labels=labels, help="".join(text), buckets=buckets)


_counter = partial(_metric, Kind.COUNTER)
_gauge = partial(_metric, Kind.GAUGE)
_info = partial(_metric, Kind.INFO)
_histogram = partial(_metric, Kind.HISTOGRAM)

# fmt: off
_TABLE: Final = (
    # self
    _info("self", "wattgate_build_info", ("version", "python"),
        "The running Wattgate: its version and its Python's."),
    _gauge("self", "wattgate_worker_up", ("worker",),
        "1 while the gateway worker of this slot is connected to the control plane, else 0."),
    _histogram("self", "wattgate_event_loop_lag_seconds", ("process",),
        "How late an event loop was, measured ten times a second: worker-0 … of the gateway, and control.",
        buckets=_LAG),
    _counter("self", "wattgate_records_dropped_total", (),
        "Request records that workers gave up because no control plane took them in time."),
    _gauge("self", "wattgate_scrape_duration_seconds", (),
        "How long the exposition before this one took to make."),
    _gauge("self", "wattgate_series", (),
        "Series in this exposition, process metrics not counted; at most telemetry.max_series."),
    _gauge("self", "wattgate_series_left_out", (),
        "Series that the budget telemetry.max_series kept out of this exposition; "
        "whole families go."),
    # fleet
    _info("fleet", "wattgate_engine_info", (*ENGINE, "quantization", "dtype", "engine_version", "device"),
        "What an engine is; join with group_left on engine. An empty label is unknown."),
    _gauge("fleet", "wattgate_engine_state", (*ENGINE, "state"),
        "1 for the state that the engine is in, 0 for every other."),
    _counter("fleet", "wattgate_engine_restarts_total", ENGINE,
        "Times that the engine was started again after it ended or hung."),
    _counter("fleet", "wattgate_engine_ejections_total", (*ENGINE, "reason"),
        "Times that the engine was taken out of the routing. silent: no answer to health checks; failures: "
        "requests failed there; hung: it answers health checks and yields no token."),
    _gauge("fleet", "wattgate_engine_requests_running", ENGINE,
        "Requests in the engine's running batch, as the engine says."),
    _gauge("fleet", "wattgate_engine_requests_waiting", ENGINE,
        "Requests waiting inside the engine, as the engine says."),
    _gauge("fleet", "wattgate_kv_cache_usage_ratio", ENGINE,
        "Share of the engine's KV cache blocks in use, 0 to 1."),
    _counter("fleet", "wattgate_engine_prompt_tokens_total", ENGINE,
        "Prompt tokens by the engine's own count, traffic past the gateway included; restarts with the "
        "engine."),
    _counter("fleet", "wattgate_engine_output_tokens_total", ENGINE,
        "Output tokens by the engine's own count, traffic past the gateway included; restarts with the "
        "engine."),
    _counter("fleet", "wattgate_engine_preemptions_total", ENGINE,
        "Requests that the engine pushed out of its batch for want of KV cache."),
    _counter("fleet", "wattgate_engine_prefix_cache_queries_total", ENGINE,
        "Prompt tokens looked up in the engine's prefix cache."),
    _counter("fleet", "wattgate_engine_prefix_cache_hits_total", ENGINE,
        "Prompt tokens found in the engine's prefix cache."),
    _gauge("fleet", "wattgate_model_parameters", ENGINE,
        "Weights of the checkpoint; scales and zero points are none, tied embeddings count once."),
    _gauge("fleet", "wattgate_model_size_bytes", ENGINE,
        "All weight files of the checkpoint on disk."),
    _gauge("fleet", "wattgate_model_bytes_per_weight", ENGINE,
        "Size on disk over parameters, the whole file; times 8 for bits (a base unit, as Prometheus wants it)."),
    _gauge("fleet", "wattgate_model_linear_bytes_per_weight", ENGINE,
        "Bytes per weight of the linear layers alone, scales and zero points included; times 8 for bits."),
    _gauge("fleet", "wattgate_adapter_loaded", CONFIGURATION,
        "1 if the adapter is loaded in the engine, 0 if it should be and is not; `other` counts the loaded "
        "ones."),
    _gauge("fleet", "wattgate_adapter_load_seconds", CONFIGURATION,
        "How long the adapter's last load into the engine took."),
    # memory
    _gauge("memory", "wattgate_memory_bytes", (*ENGINE, "kind"),
        "Memory of an engine. weights: its weight files; kv: KV cache blocks in use; kv_capacity: the whole "
        "KV cache; resident: proportional set size of its processes; device_used: GPU memory it holds. The "
        "kinds overlap: never add them."),
    # traffic
    _counter("traffic", "wattgate_requests_total", (*CONFIGURATION, "outcome"),
        "Requests that ended, by how; engine `none`: it never reached one."),
    _counter("traffic", "wattgate_tokens_total", (*CONFIGURATION, "kind"),
        "Tokens by the engine's usage: prompt, output, and cached (the part of prompt that the prefix cache "
        "held)."),
    _counter("traffic", "wattgate_requests_without_usage_total", CONFIGURATION,
        "Requests that yielded tokens without a usage to count them by; their tokens are in no token counter."),
    _counter("traffic", "wattgate_output_chunks_total", CONFIGURATION,
        "Streamed chunks with tokens, of requests with usage; below the output tokens where chunks hold "
        "several."),
    _counter("traffic", "wattgate_tenant_requests_total", ("tenant", "outcome"),
        "Requests that ended, by tenant."),
    _counter("traffic", "wattgate_tenant_tokens_total", ("tenant", "kind"),
        "Tokens by the engine's usage, by tenant; cached is part of prompt."),
    _gauge("traffic", "wattgate_requests_in_flight", ENGINE,
        "Requests sent to the engine and not ended, over all workers."),
    _gauge("traffic", "wattgate_queue_depth", (),
        "Requests waiting for admission, over all workers."),
    _counter("traffic", "wattgate_admission_rejections_total", ("reason",),
        "Requests refused for load: by admission, or by a limit of their key (rate_limit_requests, "
        "rate_limit_tokens, concurrency)."),
    _counter("traffic", "wattgate_retries_total", ("reason",),
        "Attempts at another replica, after one that failed before its first byte."),
    _counter("traffic", "wattgate_cancelled_total", ("when",),
        "Requests whose client left: queued, before_first_token, or streaming."),
    _counter("traffic", "wattgate_cancelled_tokens_spared_total", ("when",),
        "Output tokens that cancelled requests allowed (max_tokens) and that were not written: at most what leaving "
        "saved. Streams and queued requests only; of others nobody knows how many were written."),
    # energy
    _counter("energy", "wattgate_device_energy_joules_total", ("device", "scope"),
        "Energy of a device up to its last accounted window; equals the sum of its accounts. Scope says what "
        "the meter covers; `estimated`: no hardware counter."),
    _counter("energy", "wattgate_energy_joules_total", ("device", "scope", *CONFIGURATION, "account"),
        "Energy by account. active: requests; idle: engine up, nobody running; unattributed: traffic past the "
        "gateway, or nobody known; other: the operating system, the gateway, load generators."),
    _counter("energy", "wattgate_tenant_energy_joules_total", ("tenant", "scope"),
        "The active account, by tenant."),
    _info("energy", "wattgate_attribution_info", ("method",),
        "How joules are shared out to requests. token_share: by tokens, a rough method."),
    _gauge("energy", "wattgate_attribution_confidence_ratio", ("method",),
        "How far a single request's joules can be trusted, 0 to 1; sums over an engine can be trusted more."),
    _gauge("energy", "wattgate_meter_up", ("meter",),
        "1 if the meter's last reading succeeded, else 0."),
    _gauge("energy", "wattgate_meter_age_seconds", ("meter",),
        "Time since the meter's last good reading."),
    # latency
    _histogram("latency", "wattgate_time_to_first_token_seconds", CONFIGURATION,
        "Streams: from the request's arrival at the gateway to its first content, reasoning or tool-call "
        "token, queueing included.",
        buckets=_TTFT),
    _histogram("latency", "wattgate_inter_token_latency_seconds", CONFIGURATION,
        "Streams: every gap between two chunks with tokens; per token where the engine sends one a chunk "
        "(compare wattgate_output_chunks_total with the output tokens).",
        buckets=_PER_TOKEN),
    _histogram("latency", "wattgate_time_per_output_token_seconds", CONFIGURATION,
        "Streams, one value a completed request: (duration - time to first token) / (output tokens - 1).",
        buckets=_PER_TOKEN),
    _histogram("latency", "wattgate_request_duration_seconds", CONFIGURATION,
        "Completed requests for inference: from arrival at the gateway to the last byte to the client.",
        buckets=_DURATION),
    _histogram("latency", "wattgate_queue_time_seconds", CONFIGURATION,
        "Wait for admission, of requests that were sent to an engine or gave up waiting.",
        buckets=_QUEUE),
    _histogram("latency", "wattgate_overhead_seconds", CONFIGURATION,
        "What the gateway added to a completed, unretried request: from arrival to sent, less the queue, plus "
        "from the engine's last byte to the client's; a client that is slow to send or read counts in.",
        buckets=_OVERHEAD),
    # energy
    _histogram("energy", "wattgate_request_energy_joules", CONFIGURATION,
        "Joules attributed to a completed request, over all devices it used; known once its windows are "
        "closed.",
        buckets=_REQUEST_JOULES),
)
# fmt: on

CATALOGUE: Final[Mapping[str, Metric]] = {metric.name: metric for metric in _TABLE}
