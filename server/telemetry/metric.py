"""What the catalogue says of each metric, and the words for saying it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Final

__all__ = ["CONFIGURATION", "ENGINE", "UNITS", "Kind", "Metric", "counter", "gauge", "histogram", "info"]

UNITS: Final = frozenset({"seconds", "bytes", "joules", "tokens", "ratio", "grams", "watts", "flops"})


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


def _metric(
    kind: Kind, group: str, name: str, labels: tuple[str, ...], *text: str, buckets: tuple[float, ...] = ()
) -> Metric:
    return Metric(name=name, group=group, kind=kind, labels=labels, help="".join(text), buckets=buckets)


counter = partial(_metric, Kind.COUNTER)
gauge = partial(_metric, Kind.GAUGE)
info = partial(_metric, Kind.INFO)
histogram = partial(_metric, Kind.HISTOGRAM)
