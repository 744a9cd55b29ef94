"""Shows a run in the terminal and writes it down."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from loadgen._energy import EnergyReport
from loadgen._record import Record
from loadgen._summary import ModelFigures

__all__ = ["DASH", "count", "joules_by_id", "milliseconds", "public_id", "run_table", "write_run"]

DASH = "—"
"""Unknown, or too few samples."""


def milliseconds(seconds: float | None) -> str:
    if seconds is None:
        return DASH
    value = seconds * 1000
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"


def count(value: float | None, *, digits: int = 0) -> str:
    return DASH if value is None else f"{value:,.{digits}f}"


def public_id(*, model: str, variant: str, adapter: str) -> str:
    """The id that a client writes to get this configuration."""
    return f"{model if adapter == 'none' else adapter}:{variant}"


def joules_by_id(energy: EnergyReport | None) -> dict[str, float]:
    """J per output token by public id, replicas of one variant taken together."""
    joules: dict[str, float] = {}
    tokens: dict[str, int] = {}
    for use in energy.uses if energy else ():
        id_ = public_id(model=use.model, variant=use.variant, adapter=use.adapter)
        joules[id_] = joules.get(id_, 0.0) + use.active_joules
        tokens[id_] = tokens.get(id_, 0) + use.output_tokens
    return {id_: joules[id_] / tokens[id_] for id_ in joules if tokens[id_] > 0}


def run_table(figures: Sequence[ModelFigures], energy: EnergyReport | None) -> Table:
    """One row a model; fits 80 columns."""
    table = Table(title="What clients felt (ms)", title_justify="left", pad_edge=False, box=None)
    table.add_column("model", overflow="fold", min_width=12)
    for heading in ("req", "err", "TTFT p50", "p95", "ITL p50", "p95", "tok/s", "J/tok"):
        table.add_column(heading, justify="right", no_wrap=True)
    joules = joules_by_id(energy)
    for of in figures:
        table.add_row(
            of.model,
            str(of.requests),
            str(sum(of.errors.values())),
            milliseconds(of.time_to_first_token_s.p50),
            milliseconds(of.time_to_first_token_s.p95),
            milliseconds(of.inter_token_latency_s.p50),
            milliseconds(of.inter_token_latency_s.p95),
            count(of.output_tokens_per_s),
            count(_joules_of(of, joules), digits=4),
        )
    return table


def _joules_of(figures: ModelFigures, joules: Mapping[str, float]) -> float | None:
    """Of the configuration that served, if it was one."""
    names = list(figures.served_by) or [figures.model]
    return joules.get(names[0]) if len(names) == 1 else None


def write_run(folder: Path, summary: Mapping[str, Any], records: Iterable[Record]) -> None:
    """`summary.json`, and `requests.jsonl` with one record a line in the order of the requests."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "requests.jsonl").open("w", encoding="utf-8") as lines:
        for record in sorted(records, key=lambda record: record.index):
            lines.write(json.dumps(record.to_json()) + "\n")
    (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
