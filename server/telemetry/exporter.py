"""The exposition: everything on /metrics, as text or OpenMetrics."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from server.clock import Clock
from server.fleet import Replica
from server.telemetry.families import Families
from server.telemetry.labels import LabelCaps
from server.telemetry.sources import AdapterLoad, Sources
from server.telemetry.text import TextFormat
from server.units import Seconds

__all__ = ["Exposition"]

_OPENMETRICS = "application/openmetrics-text"
_ESCAPES_ALL_NAMES = "escaping=dots"
_OWN_SERIES = 2
"""wattgate_series and wattgate_series_left_out."""


class Exposition(Collector):
    """Renders in a registry of its own. `render` may be called on any thread; concurrent calls wait for one another."""

    def __init__(self, sources: Sources, *, caps: LabelCaps, clock: Clock) -> None:
        self._sources = sources
        self._caps = caps
        self._clock = clock
        self._took: Seconds | None = None
        self._one_at_a_time = threading.Lock()
        self._text = TextFormat()
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """The body and its content type, as the scraper's Accept header asks; OpenMetrics carries exemplars."""
        encode, content_type = choose_encoder(accept)
        with self._one_at_a_time:
            started = self._clock.monotonic()
            if _ESCAPES_ALL_NAMES in content_type:
                body = encode(self._registry)
            else:
                openmetrics = content_type.startswith(_OPENMETRICS)
                body = self._text.encode(self._registry.collect(), openmetrics=openmetrics)
            self._took = Seconds(self._clock.monotonic() - started)
        return body, content_type

    def describe(self) -> list[Family]:
        """Nothing is collected to learn the names: they stand in the catalogue."""
        return []

    def collect(self) -> Iterator[Family]:
        """All families within the budget of series; a family goes whole, so that no sum is quietly wrong."""
        families = self._gather()
        families.add("wattgate_scrape_duration_seconds", (), self._took)
        shown = left_out = 0
        kept = []
        for family in families:
            size = len(family.samples)
            if shown + size + _OWN_SERIES <= self._caps.max_series:
                shown += size
                kept.append(family)
            else:
                left_out += size
        own = Families()
        own.add("wattgate_series", (), shown + _OWN_SERIES)
        own.add("wattgate_series_left_out", (), left_out)
        yield from own
        yield from kept

    def _gather(self) -> Families:
        families = Families()
        traffic, replicas = self._sources.traffic.now(), self._sources.replicas()
        families.add_self(self._sources.version, traffic)
        families.add_fleet(replicas, self._adapters(replicas))
        families.add_traffic(traffic, replicas)
        if self._sources.energy is not None:
            families.add_energy(self._sources.energy())
        for samples in self._sources.samples:
            for name, labels, value in samples():
                families.add(name, labels, value)
        return families

    def _adapters(self, replicas: Sequence[Replica]) -> list[AdapterLoad]:
        loads: Sequence[AdapterLoad]
        if self._sources.adapters is not None:
            loads = self._sources.adapters()
        else:
            loads = [
                AdapterLoad(engine=replica.name, adapter=adapter, loaded=True, load_s=None)
                for replica in replicas
                for adapter in sorted(replica.adapters)
            ]
        return [replace(load, adapter=self._caps.adapters.shown(load.adapter)) for load in loads]
