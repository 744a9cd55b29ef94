"""What runs where, in which state, and what it holds in memory."""

from __future__ import annotations

from typing import Final

from grafana import queries
from grafana.panels import Column, Lines, Panel, States, Table
from grafana.rows.row import Row

__all__ = ["FLEET"]

_COLORS: Final = {
    "pending": "text",
    "starting": "blue",
    "ready": "green",
    "suspect": "light-yellow",
    "unhealthy": "orange",
    "half_open": "light-green",
    "draining": "light-blue",
    "backoff": "yellow",
    "failed": "red",
    "stopped": "purple",
}

FLEET: Final = Row(
    title="Memory and engines",
    panels=(
        Panel(
            title="Memory",
            shows=(
                "Memory of each configuration, its replicas added up: weight files, KV cache in use, memory of the "
                "engine's processes (resident), and what it holds on a GPU. The kinds overlap: never add them. vLLM "
                "allocates the KV cache ahead, so what it holds is nearly constant."
            ),
            no_data="no engine of the selection tells its memory; an engine that runs elsewhere never does.",
            unit="bytes",
            drawing=Lines(),
            queries=(queries.memory_by_kind(),),
        ),
        Panel(
            title="State of the engines",
            shows="One band an engine, coloured by its state.",
            no_data="no engine is configured, or the control plane is not scraped.",
            unit="none",
            drawing=States(states=tuple((state, _COLORS[state]) for state in queries.ENGINE_STATES)),
            queries=(queries.engine_state_code(),),
        ),
        Panel(
            title="Engines",
            shows="What each engine is and runs on.",
            no_data="no engine of the selection is known.",
            unit="none",
            drawing=Table(
                columns=(
                    Column(field="engine", name="Engine"),
                    Column(field="model", name="Model"),
                    Column(field="variant", name="Variant"),
                    Column(field="precision", name="Precision"),
                    Column(field="quantization", name="Quantization"),
                    Column(field="dtype", name="Dtype"),
                    Column(field="device", name="Device"),
                    Column(field="engine_version", name="Version"),
                ),
                sort_by="Engine",
            ),
            queries=(queries.engine_facts(),),
        ),
    ),
)
