"""Turns values into metric families: one function a group of the catalogue."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any, Final

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.samples import Exemplar as PrometheusExemplar
from prometheus_client.utils import floatToGoString

from server.fleet import Ejection, EngineState, Replica
from server.telemetry.histogram import HistogramRow
from server.telemetry.labels import NONE, OTHER
from server.telemetry.metric import Kind
from server.telemetry.metrics import CATALOGUE
from server.telemetry.sources import AdapterLoad, EnergyFigures
from server.telemetry.traffic import TrafficNow
from server.units import JOULES_PER_MICROJOULE

__all__ = ["Families"]

Labels = tuple[str, ...]

_MAX_EXEMPLAR_ID = 100
"""OpenMetrics allows 128 characters for an exemplar's names and values together."""

_GAUGES_OF_ENGINE: Final[Mapping[str, str]] = {
    "wattgate_engine_requests_running": "running",
    "wattgate_engine_requests_waiting": "waiting",
    "wattgate_kv_cache_usage_ratio": "kv_usage_ratio",
    "wattgate_engine_prompt_tokens_total": "prompt_tokens_total",
    "wattgate_engine_output_tokens_total": "output_tokens_total",
    "wattgate_engine_preemptions_total": "preemptions_total",
    "wattgate_engine_prefix_cache_queries_total": "prefix_cache_queries_total",
    "wattgate_engine_prefix_cache_hits_total": "prefix_cache_hits_total",
}
_FACTS_OF_MODEL: Final[Mapping[str, str]] = {
    "wattgate_model_parameters": "parameters",
    "wattgate_model_size_bytes": "size_bytes",
}
_BITS_OF_MODEL: Final[Mapping[str, str]] = {
    "wattgate_model_bytes_per_weight": "bits_per_weight",
    "wattgate_model_linear_bytes_per_weight": "linear_bits_per_weight",
}
_BYTES_PER_BIT = 1 / 8


class Families:
    """The families of one exposition. A value of None makes no sample; a family without samples is not exported."""

    def __init__(self) -> None:
        self._families: dict[str, Family] = {}

    def __iter__(self) -> Iterator[Family]:
        """In the catalogue's order."""
        return (self._families[name] for name in CATALOGUE if name in self._families)

    def add(self, name: str, labels: Sequence[str], value: float | None) -> None:
        """One sample of a counter, gauge or info metric."""
        if value is None:
            return
        family = self._family(name)
        if isinstance(family, InfoMetricFamily):
            family.add_metric(labels, {})
        elif isinstance(family, (CounterMetricFamily, GaugeMetricFamily)):
            family.add_metric(labels, value)

    def add_histogram(self, name: str, labels: Sequence[str], row: HistogramRow) -> None:
        """All lines of one histogram."""
        family = self._family(name)
        assert isinstance(family, HistogramMetricFamily)
        bounds = (*map(floatToGoString, CATALOGUE[name].buckets), "+Inf")
        buckets: list[tuple[str, float] | tuple[str, float, PrometheusExemplar]] = []
        for index, (bound, count) in enumerate(zip(bounds, accumulate(row.buckets), strict=True)):
            exemplar = row.exemplars.get(index)
            if exemplar is None:
                buckets.append((bound, count))
            else:
                shown = {"request_id": exemplar.request_id[:_MAX_EXEMPLAR_ID]}
                buckets.append((bound, count, PrometheusExemplar(shown, exemplar.value)))
        family.add_metric(labels, buckets, row.total)

    def add_self(self, version: str, traffic: TrafficNow) -> None:
        self.add("wattgate_build_info", (version, platform.python_version()), 1)
        for slot, up in traffic.workers.up.items():
            self.add("wattgate_worker_up", (str(slot),), up)
        self.add("wattgate_records_dropped_total", (), traffic.workers.records_dropped)

    def add_fleet(self, replicas: Sequence[Replica], adapters: Sequence[AdapterLoad]) -> None:
        for replica in replicas:
            engine, card = _engine(replica), replica.card
            facts = (card.quantization if card else "", card.dtype if card else "", replica.engine_version or "")
            self.add("wattgate_engine_info", (*engine, *facts, replica.device), 1)
            for state in EngineState:
                self.add("wattgate_engine_state", (*engine, state.value), replica.state is state)
            self.add("wattgate_engine_restarts_total", engine, replica.restarts)
            for reason in Ejection:
                self.add("wattgate_engine_ejections_total", (*engine, reason.value), replica.ejections.get(reason, 0))
            for name, attribute in _GAUGES_OF_ENGINE.items():
                self.add(name, engine, getattr(replica.gauges, attribute, None))
            for name, attribute in _FACTS_OF_MODEL.items():
                self.add(name, engine, getattr(card, attribute, None))
            for name, attribute in _BITS_OF_MODEL.items():
                bits = getattr(card, attribute, None)
                self.add(name, engine, None if bits is None else bits * _BYTES_PER_BIT)
            for kind, size in _memory(replica).items():
                self.add("wattgate_memory_bytes", (*engine, kind), size)
        self._add_adapters({replica.name: _engine(replica) for replica in replicas}, adapters)

    def _add_adapters(self, engines: Mapping[str, Labels], adapters: Sequence[AdapterLoad]) -> None:
        """The adapters' names are capped: under `other` stands how many are loaded, and no time."""
        loaded: Counter[Labels] = Counter()
        for load in adapters:
            engine = engines.get(load.engine)
            if engine is None:
                continue
            loaded[*engine, load.adapter] += load.loaded
            if load.adapter != OTHER:
                self.add("wattgate_adapter_load_seconds", (*engine, load.adapter), load.load_s)
        for labels, count in loaded.items():
            self.add("wattgate_adapter_loaded", labels, count)

    def add_traffic(self, traffic: TrafficNow, replicas: Sequence[Replica]) -> None:
        counters: Mapping[str, Mapping[Labels, int]] = {
            "wattgate_requests_total": traffic.requests,
            "wattgate_tokens_total": traffic.tokens,
            "wattgate_requests_without_usage_total": traffic.without_usage,
            "wattgate_output_chunks_total": traffic.chunks,
            "wattgate_tenant_requests_total": traffic.tenant_requests,
            "wattgate_tenant_tokens_total": traffic.tenant_tokens,
            "wattgate_cancelled_total": {(when,): count for when, count in traffic.cancelled.items()},
            "wattgate_cancelled_tokens_spared_total": {(when,): count for when, count in traffic.spared.items()},
            "wattgate_admission_rejections_total": {(why,): n for why, n in traffic.workers.rejections.items()},
            "wattgate_retries_total": {(why,): count for why, count in traffic.workers.retries.items()},
        }
        for name, counter in counters.items():
            for labels, count in sorted(counter.items()):
                self.add(name, labels, count)
        engines = {replica.name: _engine(replica) for replica in replicas}
        in_flight = {name: 0 for name in engines if traffic.workers.queued is not None} | dict(
            traffic.workers.in_flight
        )
        for name, count in in_flight.items():
            self.add("wattgate_requests_in_flight", engines.get(name, (name, NONE, NONE, NONE)), count)
        self.add("wattgate_queue_depth", (), traffic.workers.queued)
        for name, rows in traffic.histograms.items():
            for labels, row in sorted(rows.items()):
                self.add_histogram(name, labels, row)

    def add_energy(self, energy: EnergyFigures) -> None:
        # The counters of a device that cannot be read stop: they would stand still, and that reads as 0 W.
        devices = {labels: amount for labels, amount in energy.devices.items() if labels[0] not in energy.silent}
        counters: Mapping[str, Mapping[Any, int]] = {
            "wattgate_device_energy_joules_total": devices,
            "wattgate_energy_joules_total": {
                labels: amount for labels, amount in energy.accounts.items() if labels[0] not in energy.silent
            },
            "wattgate_tenant_energy_joules_total": energy.tenants if devices else {},
            "wattgate_tenant_idle_energy_joules_total": energy.tenants_idle if devices else {},
            "wattgate_energy_saved_by_cancellation_joules_total": energy.saved,
        }
        for name, counter in counters.items():
            for labels, microjoules in sorted(counter.items()):
                self.add(name, labels, _joules(microjoules))
        if energy.meters:
            self.add("wattgate_attribution_info", (energy.method,), 1)
            self.add("wattgate_attribution_confidence_ratio", (energy.method,), energy.confidence)
        for device, residual in sorted(energy.residuals.items()):
            self.add("wattgate_attribution_residual_joules", (device,), _joules(residual))
        for engine, price in sorted(energy.prices.items()):
            self.add("wattgate_output_token_price_joules", engine, _joules(price.output_token))
            self.add("wattgate_prompt_token_price_joules", engine, _joules(price.prompt_token))
        for meter, (up, age) in energy.meters.items():
            self.add("wattgate_meter_up", (meter,), up)
            self.add("wattgate_meter_age_seconds", (meter,), age)

    def _family(self, name: str) -> Family:
        family = self._families.get(name)
        if family is None:
            metric = CATALOGUE[name]
            family = self._families[name] = _new(metric.kind, name, metric.help, metric.labels, metric.unit or "")
        return family


def _new(kind: Kind, name: str, text: str, labels: Sequence[str], unit: str) -> Family:
    match kind:
        case Kind.COUNTER:
            return CounterMetricFamily(name.removesuffix("_total"), text, labels=labels, unit=unit)
        case Kind.GAUGE:
            return GaugeMetricFamily(name, text, labels=labels, unit=unit)
        case Kind.HISTOGRAM:
            return HistogramMetricFamily(name, text, labels=labels, unit=unit)
        case Kind.INFO:
            return InfoMetricFamily(name.removesuffix("_info"), text, labels=labels)


def _engine(replica: Replica) -> Labels:
    return (replica.name, replica.model, replica.variant, replica.precision)


def _joules(microjoules: float | None) -> float | None:
    return None if microjoules is None else microjoules * JOULES_PER_MICROJOULE


def _memory(replica: Replica) -> dict[str, int | None]:
    card, gauges = replica.card, replica.gauges
    capacity = None
    if card and gauges and card.kv_bytes_per_token is not None and gauges.kv_capacity_tokens is not None:
        capacity = card.kv_bytes_per_token * gauges.kv_capacity_tokens
    usage = gauges.kv_usage_ratio if gauges else None
    return {
        "weights": card.size_bytes if card else None,
        "kv": round(capacity * usage) if capacity is not None and usage is not None else None,
        "kv_capacity": capacity,
        "device_used" if replica.device.startswith("gpu") else "resident": replica.memory_bytes,
    }
