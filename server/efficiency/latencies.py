"""Quantiles of latencies, read from the histograms of telemetry."""

from __future__ import annotations

from typing import Final

from server.efficiency.figure import Figure, absent, known
from server.efficiency.groups import Group
from server.telemetry.histogram import Histograms, quantile
from server.telemetry.metrics import CATALOGUE
from server.telemetry.observations import DURATION, ITL, QUEUE, TPOT, TTFT

__all__ = ["LATENCIES", "QUANTILES", "latency"]

LATENCIES: Final = (
    ("ttft", TTFT, "TTFT"),
    ("itl", ITL, "ITL"),
    ("tpot", TPOT, "TPOT"),
    ("e2e", DURATION, "end-to-end"),
    ("queue", QUEUE, "queue time"),
)
"""Key, metric, title."""

QUANTILES: Final = ((0.5, True), (0.95, True), (0.99, False))
"""Each, and whether it stands in the short table."""

_EDGES: Final = {metric: Histograms(CATALOGUE[metric].buckets).edges for _, metric, _ in LATENCIES}


def latency(group: Group, *, metric: str, q: float) -> Figure:
    """Since the control plane started, interpolated in buckets some percent wide."""
    row = group.histograms.get(metric)
    value = None if row is None else quantile(_EDGES[metric], row.counts, q)
    return absent("nothing was observed since the start") if value is None else known(value)
