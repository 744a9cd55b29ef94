"""Which configuration is cheapest, and what that costs."""

from __future__ import annotations

from typing import Final

from grafana import queries
from grafana.panels import Column, Panel, Table, ref_id
from grafana.rows.row import Row

__all__ = ["CONFIGURATIONS"]

_WINDOW = queries.WHOLE_RANGE

_COLUMNS: Final = (
    (queries.joules_per_output_token(window=_WINDOW), "J / output token", "si:J"),
    (queries.quantile("wattgate_time_to_first_token_seconds", 0.95, window=_WINDOW), "TTFT p95", "s"),
    (queries.quantile("wattgate_inter_token_latency_seconds", 0.95, window=_WINDOW), "ITL p95", "s"),
    (queries.output_tokens_per_second(window=_WINDOW), "Output tokens/s", "short"),
    (queries.error_ratio(window=_WINDOW), "Errors", "percentunit"),
    (queries.memory_of_replica(), "Memory a replica", "bytes"),
    (queries.model_size(), "Size", "bytes"),
    (queries.model_bits_per_weight(), "Bits/weight", "short"),
    (queries.model_facts(), "Parameters", "short"),
)

CONFIGURATIONS: Final = Row(
    title="Which configuration is cheapest, and what that costs",
    panels=(
        Panel(
            title="Configurations",
            shows=(
                "One row a configuration, the cheapest a token first (after those without traffic). Rates, quantiles "
                "and joules cover the whole time range shown; tokens/s count idle time too, so compare them under the "
                "same load. Memory and model facts are those of now."
            ),
            no_data="no engine is known. In a cell, — means that nothing was measured in this time range; never zero.",
            unit="short",
            drawing=Table(
                columns=(
                    Column(field="model", name="Model"),
                    Column(field="variant", name="Variant"),
                    Column(field="precision", name="Precision"),
                    Column(field="quantization", name="Quantization"),
                    *(
                        Column(field=f"Value #{ref_id(index)}", name=name, unit=unit)
                        for index, (_, name, unit) in enumerate(_COLUMNS)
                    ),
                ),
                sort_by="J / output token",
            ),
            queries=tuple(query for query, _, _ in _COLUMNS),
            width=24,
            height=7,
        ),
    ),
)
