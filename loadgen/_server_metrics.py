"""What the gateway's own metrics say of the run: counters, queues, caches, watts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from loadgen._exposition import Scrape, lines_with, rises

__all__ = ["Reading", "ServerSeries", "server_report"]

_IN_FLIGHT: Final = "wattgate_requests_in_flight"
_QUEUE: Final = "wattgate_queue_depth"
_RUNNING: Final = "wattgate_engine_requests_running"
_WAITING: Final = "wattgate_engine_requests_waiting"
_KV: Final = "wattgate_kv_cache_usage_ratio"
_DEVICE_JOULES: Final = "wattgate_device_energy_joules_total"
_JOULES: Final = "wattgate_energy_joules_total"
_KEPT: Final = tuple(name.encode() for name in (_IN_FLIGHT, _QUEUE, _RUNNING, _WAITING, _KV, _DEVICE_JOULES, _JOULES))
"""Read each second."""

_COUNTERS: Final[Mapping[str, tuple[str, str | None]]] = {
    "requests": ("wattgate_requests_total", "outcome"),
    "tokens": ("wattgate_tokens_total", "kind"),
    "rejections": ("wattgate_admission_rejections_total", "reason"),
    "retries": ("wattgate_retries_total", "reason"),
    "cancelled": ("wattgate_cancelled_total", "when"),
    "preemptions": ("wattgate_engine_preemptions_total", "engine"),
    "prefix_cache_queries": ("wattgate_engine_prefix_cache_queries_total", "engine"),
    "prefix_cache_hits": ("wattgate_engine_prefix_cache_hits_total", "engine"),
    "engine_restarts": ("wattgate_engine_restarts_total", "engine"),
    "co2e_grams": ("wattgate_co2e_grams_total", "account"),
}
"""Name in the report → metric, and the label by which it is split up."""
_HISTOGRAMS: Final[Mapping[str, str]] = {
    "queue_time_s": "wattgate_queue_time_seconds",
    "overhead_s": "wattgate_overhead_seconds",
    "time_to_first_token_s": "wattgate_time_to_first_token_seconds",
    "inter_token_latency_s": "wattgate_inter_token_latency_seconds",
    "event_loop_lag_s": "wattgate_event_loop_lag_seconds",
}
_GAUGES: Final[Mapping[str, tuple[str, Callable[[Sequence[float]], float]]]] = {
    "in_flight": (_IN_FLIGHT, sum),
    "queue_depth": (_QUEUE, sum),
    "engine_running": (_RUNNING, sum),
    "engine_waiting": (_WAITING, sum),
    "kv_usage_ratio": (_KV, max),
}


@dataclass(frozen=True, slots=True)
class Reading:
    """One scrape."""

    at_s: float
    """CLOCK_MONOTONIC."""
    text: bytes
    energy_until_s: float | None = None
    """CLOCK_MONOTONIC up to which the joules in it are attributed; None: unknown."""

    @property
    def kept(self) -> Reading:
        """Without what is not looked at each second."""
        return Reading(self.at_s, lines_with(self.text, _KEPT), self.energy_until_s)


class ServerSeries:
    """The readings of a run, parsed once it is over."""

    def __init__(self, readings: Sequence[Reading]) -> None:
        self._scrapes = [(reading, Scrape(reading.text.decode("utf-8", "replace"))) for reading in readings]

    def gauges(self, origin_s: float) -> dict[str, list[float | None]]:
        """Columns of equal length; `at_s` counts from `origin_s`."""
        columns: dict[str, list[float | None]] = {
            "at_s": [round(reading.at_s - origin_s, 3) for reading, _ in self._scrapes]
        }
        for name, (metric, reduce) in _GAUGES.items():
            found = [scrape.values(metric) for _, scrape in self._scrapes]
            columns[name] = [reduce(values) if values else None for values in found]
        return columns

    def power(self, origin_s: float) -> dict[str, list[float]]:
        """Mean watts of all devices between two readings, at the end of each such stretch."""
        joules: dict[float, float] = {}
        for reading, scrape in self._scrapes:
            total = scrape.sum(_DEVICE_JOULES)
            if total is not None and reading.energy_until_s is not None:
                joules[reading.energy_until_s] = total
        steps = [
            (end - origin_s, (joules[end] - joules[start]) / (end - start)) for start, end in pairwise(sorted(joules))
        ]
        return {"at_s": [round(at, 3) for at, _ in steps], "watts": [round(watts, 3) for _, watts in steps]}

    def idle_joules(self, start_s: float, end_s: float) -> dict[str, float]:
        """By engine, of a stretch of CLOCK_MONOTONIC; an engine that is not in it is unknown."""
        before, after = self._idle_at(start_s), self._idle_at(end_s)
        return {engine: after[engine] - before[engine] for engine in after if engine in before}

    def _idle_at(self, at_s: float) -> dict[str, float]:
        known = [
            (reading.energy_until_s, scrape.by(_JOULES, ("engine",), account="idle"))
            for reading, scrape in self._scrapes
            if reading.energy_until_s is not None
        ]
        for (start, before), (end, after) in pairwise(sorted(known, key=lambda found: found[0])):
            if start <= at_s <= end and end > start:
                share = (at_s - start) / (end - start)
                return {key[0]: before.get(key, 0.0) * (1 - share) + value * share for key, value in after.items()}
        return {}


def server_report(before: Reading, after: Reading, readings: Sequence[Reading], origin_s: float) -> dict[str, Any]:
    """Plain JSON: what counters and histograms rose by between two whole scrapes, and gauges second by second.

    What the gateway does not export is null. Other clients' requests are in it as well.
    """
    first, last = (Scrape(reading.text.decode("utf-8", "replace")) for reading in (before, after))
    series = ServerSeries(readings)
    gauges = series.gauges(origin_s)
    counters = {name: _risen(first, last, metric, label) for name, (metric, label) in _COUNTERS.items()}
    return {
        "start_s": round(before.at_s - origin_s, 3),
        "end_s": round(after.at_s - origin_s, 3),
        "counters": counters,
        "prefix_cache_hit_ratio": _ratio(counters["prefix_cache_hits"], counters["prefix_cache_queries"]),
        "histograms": {name: _histogram(first, last, metric) for name, metric in _HISTOGRAMS.items()},
        "gauges": {name: _extent(values) for name, values in gauges.items() if name != "at_s"},
        "series": gauges,
        "power": series.power(origin_s),
    }


def _risen(first: Scrape, last: Scrape, metric: str, label: str | None) -> dict[str, float] | None:
    keys = (label,) if label else ()
    after = last.by(metric, keys)
    if not after:
        return None
    return {key[0] if key else "all": round(value, 6) for key, value in rises(after, first.by(metric, keys))}


def _histogram(first: Scrape, last: Scrape, metric: str) -> dict[str, Any] | None:
    after = last.buckets(metric)
    return None if after is None else after.since(first.buckets(metric)).to_json()


def _ratio(part: Mapping[str, float] | None, whole: Mapping[str, float] | None) -> float | None:
    if part is None or not whole or not sum(whole.values()):
        return None
    return sum(part.values()) / sum(whole.values())


def _extent(values: Sequence[float | None]) -> dict[str, float | None]:
    known = [value for value in values if value is not None]
    return {"mean": sum(known) / len(known) if known else None, "max": max(known, default=None)}
