"""How much is served, and how much of it fails."""

from __future__ import annotations

from typing import Final

from grafana import queries
from grafana.panels import Lines, Panel
from grafana.rows.row import Row

__all__ = ["TRAFFIC"]

_NO_DATA: Final = "the selected configurations ended no request in this window."

TRAFFIC: Final = Row(
    title="Throughput and errors",
    panels=(
        Panel(
            title="Output tokens per second",
            shows="Tokens that the engines report as generated, all streams of a configuration together.",
            no_data=_NO_DATA,
            unit="suffix: tok/s",
            drawing=Lines(),
            queries=(queries.output_tokens_per_second(),),
        ),
        Panel(
            title="Requests per second",
            shows="Requests that ended, whatever their outcome.",
            no_data=_NO_DATA,
            unit="reqps",
            drawing=Lines(),
            queries=(queries.requests_per_second(),),
        ),
        Panel(
            title="Error ratio",
            shows=(
                "Requests that the service failed (engine error, timeout, cut off, internal), as a share of all that "
                "ended. A client's own mistakes and clients that left do not count. Requests refused before they were "
                "routed belong to no configuration and have a line of their own, over all requests."
            ),
            no_data=_NO_DATA,
            unit="percentunit",
            drawing=Lines(maximum=1),
            queries=(queries.error_ratio(), queries.refused_ratio()),
        ),
    ),
)
