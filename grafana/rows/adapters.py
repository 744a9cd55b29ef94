"""Adapters: where they are loaded, who uses them, what they cost."""

from __future__ import annotations

from typing import Final

from grafana import queries
from grafana.panels import Lines, Panel
from grafana.queries import engines
from grafana.rows.row import Row

__all__ = ["ADAPTERS"]

_NO_DATA: Final = "no adapter of the selection had traffic in this window."

ADAPTERS: Final = Row(
    title="Adapters",
    panels=(
        Panel(
            title="Requests",
            shows="The adapter `none` is the base model alone, `other` are those beyond the metrics' bound.",
            no_data=_NO_DATA,
            unit="reqps",
            drawing=Lines(),
            queries=(engines.adapter_requests(),),
        ),
        Panel(
            title="Output tokens",
            shows="Tokens that the engines report as generated, by adapter.",
            no_data=_NO_DATA,
            unit="suffix: tok/s",
            drawing=Lines(),
            queries=(engines.adapter_tokens(),),
        ),
        Panel(
            title="Joules a token",
            shows="An adapter makes its batch's steps slower, and pays for that.",
            no_data="no meter reads the device, or no token came in this window.",
            unit="si:J/token",
            drawing=Lines(),
            queries=(queries.joules_per_output_token(by=("model", "variant", "adapter")),),
        ),
        Panel(
            title="First token, p95",
            shows="Nineteen of twenty streams have their first token earlier.",
            no_data=_NO_DATA,
            unit="s",
            drawing=Lines(),
            queries=(engines.adapter_ttft(0.95),),
        ),
        Panel(
            title="Loaded",
            shows="1 if the adapter is loaded in the engine, 0 if it should be and is not.",
            no_data="no adapter is configured for the selected engines.",
            unit="short",
            drawing=Lines(maximum=1),
            queries=(engines.adapters_loaded(),),
        ),
        Panel(
            title="Time to load",
            shows="How long the last load of each adapter into each engine took.",
            no_data="no adapter was loaded yet.",
            unit="s",
            drawing=Lines(),
            queries=(engines.adapter_load_seconds(),),
        ),
    ),
)
