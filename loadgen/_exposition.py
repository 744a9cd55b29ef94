"""Reads Prometheus text: sums of counters, buckets of histograms, gauges."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from prometheus_client.parser import text_string_to_metric_families

__all__ = ["Buckets", "Scrape", "lines_with", "rises"]

Labels = tuple[str, ...]

_PERCENTS: Final = (50, 95, 99)


def lines_with(text: bytes, names: tuple[bytes, ...]) -> bytes:
    """The samples of these metrics alone: a scrape each second would else fill the memory."""
    return b"\n".join(line for line in text.split(b"\n") if line.startswith(names)) + b"\n"


@dataclass(frozen=True, slots=True)
class Buckets:
    """A histogram, its labels summed up."""

    total: float
    sum: float
    below: Mapping[float, float]
    """Upper bound → observations up to it."""

    def since(self, before: Buckets | None) -> Buckets:
        if before is None:
            return self
        below = {bound: value - before.below.get(bound, 0.0) for bound, value in self.below.items()}
        return Buckets(self.total - before.total, self.sum - before.sum, below)

    def to_json(self) -> dict[str, Any]:
        """Percentiles are those of the buckets, straight within each: as PromQL's histogram_quantile."""
        percentiles = {f"p{percent}": self._quantile(percent / 100) for percent in _PERCENTS}
        mean = self.sum / self.total if self.total > 0 else None
        return {"samples": round(self.total), "mean": mean, **percentiles}

    def _quantile(self, share: float) -> float | None:
        if self.total <= 0:
            return None
        rank, lower, under = share * self.total, 0.0, 0.0
        for bound in sorted(self.below):
            reached = self.below[bound]
            if reached >= rank and reached > under:
                # Beyond the last bound nothing is known but that bound.
                return lower if math.isinf(bound) else lower + (bound - lower) * (rank - under) / (reached - under)
            lower, under = bound if not math.isinf(bound) else lower, reached
        return None


class Scrape:
    """One scrape. A metric that is not in it is None, never 0."""

    def __init__(self, text: str) -> None:
        self._samples: dict[str, list[tuple[Mapping[str, str], float]]] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                self._samples.setdefault(sample.name, []).append((sample.labels, sample.value))

    def values(self, name: str, **labels: str) -> list[float]:
        """Of every series with these labels."""
        found = self._samples.get(name, ())
        return [value for has, value in found if all(has.get(key) == wanted for key, wanted in labels.items())]

    def sum(self, name: str, **labels: str) -> float | None:
        values = self.values(name, **labels)
        return math.fsum(values) if values else None

    def by(self, name: str, keys: Sequence[str], **labels: str) -> dict[Labels, float]:
        """Sums by some labels."""
        sums: dict[Labels, float] = {}
        for has, value in self._samples.get(name, ()):
            if all(has.get(key) == wanted for key, wanted in labels.items()):
                group = tuple(has.get(key, "") for key in keys)
                sums[group] = sums.get(group, 0.0) + value
        return sums

    def buckets(self, name: str) -> Buckets | None:
        below: dict[float, float] = {}
        for has, value in self._samples.get(f"{name}_bucket", ()):
            bound = float(has["le"])
            below[bound] = below.get(bound, 0.0) + value
        total, summed = self.sum(f"{name}_count"), self.sum(f"{name}_sum")
        return None if total is None or summed is None else Buckets(total, summed, below)


def rises(after: Mapping[Labels, float], before: Mapping[Labels, float]) -> Iterable[tuple[Labels, float]]:
    """What counters rose by; one that fell was started anew and counts from 0."""
    for key, value in after.items():
        earlier = before.get(key, 0.0)
        yield key, value - earlier if value >= earlier else value
