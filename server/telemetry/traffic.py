"""Adds up what workers report: counters, and histograms over whole batches."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from server.telemetry.histogram import HistogramRow, Histograms
from server.telemetry.labels import NONE, OTHER, LabelCaps, refold
from server.telemetry.metrics import CATALOGUE, Kind
from server.telemetry.observations import DURATION, ITL, TPOT, TTFT, gaps, is_inference, observations
from server.telemetry.spans import Spans
from server.telemetry.workers import Workers, WorkersNow
from server.units import Microjoules
from server.wire import Batch, Hello, Outcome, RequestRecord, TokenTimes

__all__ = ["REQUEST_ENERGY", "Labels", "Traffic", "TrafficNow"]

Labels = tuple[str, ...]
"""(engine, model, variant, precision, adapter), the adapter capped; counters append their own."""

REQUEST_ENERGY = "wattgate_request_energy_joules"

_ADAPTER = 4
_WITH_EXEMPLARS = frozenset({TTFT, TPOT, DURATION})
_GENERATING = frozenset({"chat", "completions"})
_SHARE_OF_HISTOGRAMS = 0.6
"""Of the series budget; engine and adapter pairs beyond it share the adapter `other`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrafficNow:
    """A copy of everything, for another thread to read."""

    requests: Mapping[Labels, int]
    """(…, outcome)"""
    tokens: Mapping[Labels, int]
    """(…, kind)"""
    without_usage: Mapping[Labels, int]
    chunks: Mapping[Labels, int]
    tenant_requests: Mapping[Labels, int]
    """(tenant, outcome)"""
    tenant_tokens: Mapping[Labels, int]
    """(tenant, kind)"""
    cancelled: Mapping[str, int]
    histograms: Mapping[str, Mapping[Labels, HistogramRow]]
    """By metric."""
    busy: Mapping[Labels, Spans]
    """When at least one request was at an engine."""
    workers: WorkersNow


class Traffic:
    """The traffic, latency and self groups. Written on the event loop, read from any thread."""

    def __init__(self, caps: LabelCaps) -> None:
        self._caps = caps
        self._lock = threading.RLock()  # reentrant: labelling a name may evict another
        self._workers = Workers()
        self._requests: Counter[Labels] = Counter()
        self._tokens: Counter[Labels] = Counter()
        self._without_usage: Counter[Labels] = Counter()
        self._chunks: Counter[Labels] = Counter()
        self._tenant_requests: Counter[Labels] = Counter()
        self._tenant_tokens: Counter[Labels] = Counter()
        self._cancelled: Counter[str] = Counter()
        self._busy: defaultdict[Labels, Spans] = defaultdict(Spans)
        self._histograms = {
            name: Histograms(metric.buckets) for name, metric in CATALOGUE.items() if metric.kind is Kind.HISTOGRAM
        }
        self._pairs: set[Labels] = set()
        lines = sum(len(histograms.bounds) + 3 for histograms in self._histograms.values())
        self._max_pairs = int(_SHARE_OF_HISTOGRAMS * caps.max_series / lines)
        caps.adapters.on_evict(self._forget_adapter)
        caps.tenants.on_evict(self._forget_tenant)

    def take(self, batch: Batch, worker: Hello) -> bool:
        """Count a batch; False if it came before (then nothing was counted, and nobody else should count it)."""
        with self._lock:
            if not self._workers.take(batch, worker):
                return False
            self._take_records(batch.records)
            self._take_tokens(batch.tokens)
            return True

    def left(self, worker: Hello) -> None:
        """The worker's connection is gone."""
        with self._lock:
            self._workers.left(worker)

    def take_energy(self, request_id: str, labels: Labels, energy: Microjoules) -> None:
        """Observe the joules of a completed request; `labels` as in `Labels`, the adapter's name not yet capped."""
        with self._lock:
            key = self._key(labels)
            self._histograms[REQUEST_ENERGY].observe([key], np.array([energy / 1e6]), [request_id])

    def now(self) -> TrafficNow:
        """A consistent copy."""
        with self._lock:
            return TrafficNow(
                requests=dict(self._requests),
                tokens=dict(self._tokens),
                without_usage=dict(self._without_usage),
                chunks=dict(self._chunks),
                tenant_requests=dict(self._tenant_requests),
                tenant_tokens=dict(self._tenant_tokens),
                cancelled=dict(self._cancelled),
                histograms={name: histograms.rows() for name, histograms in self._histograms.items()},
                busy={labels: spans.copy() for labels, spans in self._busy.items()},
                workers=self._workers.now(),
            )

    def _take_records(self, records: list[RequestRecord]) -> None:
        columns: defaultdict[str, tuple[list[Labels], list[float], list[str]]] = defaultdict(lambda: ([], [], []))
        for record in records:
            key = self._key(_labels(record))
            self._count(record, key)
            for name, value in observations(record):
                keys, values, ids = columns[name]
                keys.append(key)
                values.append(value)
                ids.append(record.id)
        for name, (keys, values, ids) in columns.items():
            self._histograms[name].observe(keys, np.array(values), ids if name in _WITH_EXEMPLARS else None)

    def _take_tokens(self, streams: list[TokenTimes]) -> None:
        keys = [self._key((s.engine, s.model, s.variant, s.precision, s.adapter)) for s in streams]
        self._histograms[ITL].observe_runs(keys, [gaps(stream) for stream in streams])

    def _count(self, record: RequestRecord, key: Labels) -> None:
        tenant = self._caps.tenants(record.tenant)
        self._requests[(*key, record.outcome.value)] += 1
        self._tenant_requests[tenant, record.outcome.value] += 1
        if record.outcome is Outcome.CANCELLED and record.cancelled_when is not None:
            self._cancelled[record.cancelled_when] += 1
        for kind, count in _tokens(record):
            self._tokens[(*key, kind)] += count
            self._tenant_tokens[tenant, kind] += count
        if record.output_tokens is not None:
            self._chunks[key] += record.token_chunks
        elif record.token_chunks or (record.outcome is Outcome.OK and record.endpoint in _GENERATING):
            self._without_usage[key] += 1
        if record.sent_at is not None and is_inference(record):
            self._busy[key].add(record.sent_at, record.ended_at)

    def _key(self, labels: Labels) -> Labels:
        """Cap the adapter, by name and by the budget of series."""
        key = (*labels[:_ADAPTER], self._caps.adapters(labels[_ADAPTER]))
        if key in self._pairs or key[_ADAPTER] in (NONE, OTHER):
            return key
        if len(self._pairs) >= self._max_pairs:
            return (*labels[:_ADAPTER], OTHER)
        self._pairs.add(key)
        return key

    def _forget_adapter(self, name: str) -> None:
        with self._lock:
            for key in [key for key in self._pairs if key[_ADAPTER] == name]:
                self._pairs.discard(key)
                for histograms in self._histograms.values():
                    histograms.merge(key, (*key[:_ADAPTER], OTHER))
            for counter in (self._requests, self._tokens, self._without_usage, self._chunks, self._busy):
                refold(counter, _ADAPTER, name)

    def _forget_tenant(self, name: str) -> None:
        with self._lock:
            refold(self._tenant_requests, 0, name)
            refold(self._tenant_tokens, 0, name)


def _labels(record: RequestRecord) -> Labels:
    return (
        record.engine or NONE,
        record.model or NONE,
        record.variant or NONE,
        record.precision or NONE,
        record.adapter,
    )


def _tokens(record: RequestRecord) -> list[tuple[str, int]]:
    counts = {"prompt": record.prompt_tokens, "cached": record.cached_tokens, "output": record.output_tokens}
    return [(kind, count) for kind, count in counts.items() if count is not None]
