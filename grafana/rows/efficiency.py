"""The six EfficientLLM metrics, live, and what stands beside them."""

from __future__ import annotations

from typing import Final

from grafana.panels import Column, Lines, Panel, Table, ref_id
from grafana.queries import engines
from grafana.rows.row import Row

__all__ = ["EFFICIENCY"]

_PAPER: Final = (
    ("amu_ratio", "AMU", "percentunit"),
    ("pcu_ratio", "PCU", "percentunit"),
    ("al_seconds", "AL", "s"),
    ("at_tokens_per_second", "AT, tokens/s", "short"),
    ("aec_watts", "AEC", "watt"),
    ("mcr_ratio", "MCR", "short"),
)
_QUALITY: Final = (
    ("wattgate_quality_perplexity_ratio", "Perplexity ratio", "short"),
    ("wattgate_quality_kl_nats", "KL, nats", "short"),
    ("wattgate_quality_top1_agreement_ratio", "Top-1 agreement", "percentunit"),
)
_COLUMNS: Final = (
    *((engines.efficiency(f"wattgate_efficientllm_{name}"), title, unit) for name, title, unit in _PAPER),
    *((engines.quality(name), title, unit) for name, title, unit in _QUALITY),
)

EFFICIENCY: Final = Row(
    title="EfficientLLM",
    panels=(
        Panel(
            title="The paper's six metrics, and quality",
            shows=(
                "As the paper defines them, over the last minute: memory and compute utilization, latency, throughput, "
                "power, compression. docs/efficiency.md says what each does not say; `wattgate efficiency` ranks."
            ),
            no_data="no engine is known. In a cell, — means not measured; never zero.",
            unit="short",
            drawing=Table(
                columns=(
                    Column(field="model", name="Model"),
                    Column(field="variant", name="Variant"),
                    *(
                        Column(field=f"Value #{ref_id(index)}", name=title, unit=unit)
                        for index, (_, title, unit) in enumerate(_COLUMNS)
                    ),
                ),
                sort_by="AEC",
            ),
            queries=tuple(query for query, _, _ in _COLUMNS),
            width=16,
            height=7,
        ),
        Panel(
            title="Utilization of compute and of memory bandwidth",
            shows=(
                "Model FLOPs over the device's peak (MFU), and bytes that steps had to read over its bandwidth (MBU). "
                "Decoding is bound by bandwidth: a low MFU beside a high MBU is no fault."
            ),
            no_data="the device's peak is unknown, or the architecture has no model here.",
            unit="percentunit",
            drawing=Lines(),
            queries=(engines.mfu(), engines.mbu()),
            height=7,
        ),
    ),
)
