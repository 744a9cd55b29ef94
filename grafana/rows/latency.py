"""How long clients wait: first token, between tokens, per token."""

from __future__ import annotations

from typing import Final

from grafana.panels import Lines, Panel
from grafana.queries import quantile
from grafana.rows.row import Row

__all__ = ["LATENCY"]

_NO_DATA: Final = "no request of the selected configurations got a token in this window."


def _quantiles(title: str, histogram: str, shows: str) -> Panel:
    return Panel(
        title=title,
        shows=f"{shows} The median and the 95th percentile of each configuration, read from histogram buckets.",
        no_data=_NO_DATA,
        unit="s",
        drawing=Lines(),
        queries=(quantile(histogram, 0.5), quantile(histogram, 0.95)),
    )


LATENCY: Final = Row(
    title="Latency",
    panels=(
        _quantiles(
            "Time to first token",
            "wattgate_time_to_first_token_seconds",
            "From a request's arrival at the gateway to its first content, reasoning or tool-call token; streams only.",
        ),
        _quantiles(
            "Inter-token latency",
            "wattgate_inter_token_latency_seconds",
            "Every gap between two tokens of a stream: what a reader feels, stalls included.",
        ),
        _quantiles(
            "Time per output token",
            "wattgate_time_per_output_token_seconds",
            "One value a request: its time after the first token, divided by its remaining tokens.",
        ),
    ),
)
