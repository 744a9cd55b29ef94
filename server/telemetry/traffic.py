"""Adds up what workers report: counters, and histograms over whole batches."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress

import numpy as np

from server.accounts import RequestEnergy
from server.arrivals import Arrivals
from server.telemetry.histogram import HistogramRow, Histograms
from server.telemetry.kinds import KIND, Places, RecordKind, Sums
from server.telemetry.labels import NONE, OTHER, LabelCaps, refold
from server.telemetry.metric import Kind
from server.telemetry.metrics import CATALOGUE
from server.telemetry.observations import DURATION, ITL, LAG, TPOT, TTFT, Columns, Flags, is_inference
from server.telemetry.spans import Spans
from server.telemetry.workers import Workers, WorkersNow
from server.wire import Batch, Hello, Outcome, RequestRecord

__all__ = ["REQUEST_ENERGY", "Labels", "Traffic", "TrafficNow", "TrafficTotals"]

Labels = tuple[str, ...]
"""(engine, model, variant, precision, adapter), the adapter capped; counters append their own."""

REQUEST_ENERGY = "wattgate_request_energy_joules"

_ADAPTER = 4
_WITH_EXEMPLARS = frozenset({TTFT, TPOT, DURATION})
_GENERATING = frozenset({"chat", "completions", "responses", "messages"})
_MUCH = 4000
"""Records, streams and batches together."""
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
    spared: Mapping[str, int]
    histograms: Mapping[str, Mapping[Labels, HistogramRow]]
    """By metric."""
    busy: Mapping[Labels, Spans]
    """When at least one request was at an engine."""
    workers: WorkersNow


@dataclass(frozen=True, slots=True, kw_only=True)
class TrafficTotals:
    """Sums over everything, since the control plane started."""

    outcomes: Mapping[str, int]
    """Ended requests, by outcome."""
    output_tokens: int
    workers: WorkersNow


class Traffic:
    """The traffic, latency and self groups. Written on the event loop, read from any thread.

    What batches bring is counted when it is much, or when somebody looks: numpy's calls cost by their number.
    """

    def __init__(self, caps: LabelCaps) -> None:
        self._caps = caps
        self._lock = caps.lock
        self._workers = Workers()
        self._requests: Counter[Labels] = Counter()
        self._tokens: Counter[Labels] = Counter()
        self._without_usage: Counter[Labels] = Counter()
        self._chunks: Counter[Labels] = Counter()
        self._tenant_requests: Counter[Labels] = Counter()
        self._tenant_tokens: Counter[Labels] = Counter()
        self._cancelled: Counter[str] = Counter()
        self._spared: Counter[str] = Counter()
        self._busy: defaultdict[Labels, Spans] = defaultdict(Spans)
        self._histograms = {
            name: Histograms(metric.buckets) for name, metric in CATALOGUE.items() if metric.kind is Kind.HISTOGRAM
        }
        self._records: list[RequestRecord] = []
        self._arrivals: list[Arrivals] = []
        self._lags: defaultdict[str, list[float]] = defaultdict(list)
        self._weight = 0
        self._pairs: set[Labels] = set()
        lines = sum(len(one.bounds) + 3 for name, one in self._histograms.items() if name != LAG)
        self._max_pairs = int(_SHARE_OF_HISTOGRAMS * caps.max_series / lines)
        caps.adapters.on_evict(self._forget_adapter)
        caps.tenants.on_evict(self._forget_tenant)

    def take(self, batch: Batch, worker: Hello) -> bool:
        """Count a batch; False if it came before (then nothing was counted, and nobody else should count it)."""
        with self._lock:
            if not self._workers.take(batch, worker):
                return False
            if batch.tokens.ids:
                self._arrivals.append(Arrivals.of(batch.tokens))
            self._records += batch.records
            self._lags[f"worker-{worker.slot}"] += batch.gauges.loop_lags_s
            self._weight += len(batch.records) + len(batch.tokens.ids) + 1
            if self._weight > _MUCH:
                self._catch_up()
            return True

    def left(self, worker: Hello) -> None:
        """The worker's connection is gone."""
        with self._lock:
            self._workers.left(worker)

    def take_energies(self, energies: Iterable[RequestEnergy]) -> None:
        """Observe the joules of the requests that were completed and of which all is known; adapters are as they came.

        What is known of the others is no distribution of anything.
        """
        whole = [one for one in energies if one.completed and one.whole]
        if not whole:
            return
        with self._lock:
            places = Places(one.labels for one in whole)
            keys = [self._key(one) for one in places.distinct]
            joules = np.array([one.energy for one in whole]) / 1e6
            self._histograms[REQUEST_ENERGY].observe(keys, places.of_each, joules, [one.id for one in whole])

    def take_lags(self, process: str, lags_s: Sequence[float]) -> None:
        """Observe how late an event loop was, in seconds."""
        with self._lock:
            self._lags[process] += lags_s

    def now(self) -> TrafficNow:
        """A consistent copy."""
        with self._lock:
            self._catch_up()
            return TrafficNow(
                requests=dict(self._requests),
                tokens=dict(self._tokens),
                without_usage=dict(self._without_usage),
                chunks=dict(self._chunks),
                tenant_requests=dict(self._tenant_requests),
                tenant_tokens=dict(self._tenant_tokens),
                cancelled=dict(self._cancelled),
                spared=dict(self._spared),
                histograms={name: histograms.rows() for name, histograms in self._histograms.items()},
                busy={labels: spans.copy() for labels, spans in self._busy.items()},
                workers=self._workers.now(),
            )

    def totals(self) -> TrafficTotals:
        """The sums alone: what is asked every second, and need not copy histograms."""
        with self._lock:
            self._catch_up()
            outcomes: Counter[str] = Counter()
            for labels, count in self._requests.items():
                outcomes[labels[-1]] += count
            output = sum(count for labels, count in self._tokens.items() if labels[-1] == "output")
            return TrafficTotals(outcomes=outcomes, output_tokens=output, workers=self._workers.now())

    def _catch_up(self) -> None:
        """Count what was put aside."""
        records, arrivals, lags = self._records, self._arrivals, self._lags
        self._records, self._arrivals, self._lags, self._weight = [], [], defaultdict(list), 0
        if records:
            self._take_records(records)
        if arrivals:
            self._take_tokens(arrivals)
        for process, lags_s in lags.items():
            self._histograms[LAG].observe([(process,)], np.zeros(len(lags_s), np.int64), np.array(lags_s, np.float64))

    def _take_records(self, records: Sequence[RequestRecord]) -> None:
        places = Places(map(KIND, records))
        kinds, columns = [RecordKind(*kind) for kind in places.distinct], Columns(records)
        keys = [self._key(kind.labels) for kind in kinds]
        sums = Sums(columns, places.of_each, len(kinds))
        for place, (kind, key) in enumerate(zip(kinds, keys, strict=True)):
            self._count(kind, key, sums, place)
        inference = np.array([is_inference(kind.endpoint) for kind in kinds])[places.of_each]
        self._cover(columns, inference, keys, places)
        ok = np.array([kind.outcome == Outcome.OK.value for kind in kinds])[places.of_each]
        for record in records:
            if record.cancelled_when is not None and record.tokens_spared is not None:
                self._spared[record.cancelled_when] += record.tokens_spared
        ids = [record.id for record in records]
        for name, seen, values in columns.observations(inference, ok):
            if seen.any():
                exemplars = list(compress(ids, seen.tolist())) if name in _WITH_EXEMPLARS else None
                self._histograms[name].observe(keys, places.of_each[seen], values[seen], exemplars)

    def _take_tokens(self, arrivals: Sequence[Arrivals]) -> None:
        keys: list[Labels] = []
        which, gaps = [], []
        for one in arrivals:
            places, values = one.gaps()
            which.append(places + len(keys))
            gaps.append(values)
            keys += [self._key((s.engine, s.model, s.variant, s.precision, s.adapter)) for s in one.sources]
        self._histograms[ITL].observe(keys, np.concatenate(which), np.concatenate(gaps))

    def _count(self, kind: RecordKind, key: Labels, sums: Sums, place: int) -> None:
        """Count the records of one kind."""
        tenant, count = self._caps.tenants(kind.tenant), sums.records[place]
        self._requests[(*key, kind.outcome)] += count
        self._tenant_requests[tenant, kind.outcome] += count
        if kind.outcome == Outcome.CANCELLED.value and kind.cancelled_when is not None:
            self._cancelled[kind.cancelled_when] += count
        for what, (known, amount) in sums.tokens.items():
            if known[place]:
                self._tokens[(*key, what)] += amount[place]
                self._tenant_tokens[tenant, what] += amount[place]
        if sums.with_usage[place]:
            self._chunks[key] += sums.chunks[place]
        silent = kind.outcome == Outcome.OK.value and kind.endpoint in _GENERATING
        if without := sums.silent[place] * silent + sums.chunks_only[place]:
            self._without_usage[key] += without

    def _cover(self, columns: Columns, inference: Flags, keys: Sequence[Labels], places: Places) -> None:
        """Note when requests were at engines."""
        merged = Places(keys)
        key_of = merged.of_each[places.of_each]
        counts = inference & ~np.isnan(columns.sent_at)
        for place, key in enumerate(merged.distinct):
            these = counts & (key_of == place)
            if these.any():
                self._busy[key].add_all(columns.sent_at[these], columns.ended_at[these])

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
