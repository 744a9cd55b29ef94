"""Several ways of training on the same examples, side by side.

Beside every figure stands its rank (1 is best): no method is best in all, and a single score would hide that.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from quant.tune.run import Order, Trainer
from quant.whole_directory import whole_directory

__all__ = ["COMPARISON_FILE", "compare", "markdown"]

COMPARISON_FILE: Final = "comparison.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Column:
    head: str
    read: Callable[[Mapping[str, Any]], float | None]
    shown: str
    """A format; `{}` is the value."""
    best: int = -1
    """1: the largest is best; -1: the smallest; 0: not ranked."""


def _metric(name: str) -> Callable[[Mapping[str, Any]], float | None]:
    return lambda row: row["metrics"].get(name)


_COLUMNS: Final = (
    _Column(head="trained", read=lambda row: row["trained_parameters"], shown="{:,.0f}"),
    _Column(head="saved MB", read=lambda row: row["size_bytes"] / 1e6, shown="{:.2f}"),
    _Column(head="held-out loss", read=lambda row: row["held_out_loss_after"], shown="{:.3f}"),
    _Column(head="training loss", read=lambda row: row["loss"], shown="{:.3f}"),
    _Column(head="AMU", read=_metric("amu_ratio"), shown="{:.1%}"),
    _Column(head="PCU", read=_metric("pcu_ratio"), shown="{:.1%}", best=0),
    _Column(head="AL s/step", read=_metric("al_seconds_per_step"), shown="{:.3f}"),
    _Column(head="ST samples/s", read=_metric("st_samples_per_second"), shown="{:.1f}", best=1),
    _Column(head="AEC W", read=_metric("aec_watts"), shown="{:.1f}"),
    _Column(head="J/sample", read=_metric("joules_per_sample"), shown="{:.2f}"),
)


def compare(trainer: Trainer, order: Order, methods: Sequence[str], out: Path) -> list[dict[str, Any]]:
    """Train by every method into `out/METHOD`; `out` is whole or absent. Returns one row a method."""
    with whole_directory(out) as folder:
        rows = [trainer.tune(replace(order, method=name), folder / name) for name in methods]
        (folder / COMPARISON_FILE).write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    return rows


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """A table; columns of which nothing is known are left out, single unknowns are `—`."""
    known = [column for column in _COLUMNS if any(column.read(row) is not None for row in rows)]
    lines = ["| method | " + " | ".join(column.head for column in known) + " |", "|---" * (len(known) + 1) + "|"]
    cells = [_cells(column, rows) for column in known]
    for index, row in enumerate(rows):
        lines.append(f"| {row['method']} | " + " | ".join(column[index] for column in cells) + " |")
    return "\n".join(lines)


def _cells(column: _Column, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    values = [column.read(row) for row in rows]
    return [
        "—" if value is None else column.shown.format(value) + _rank(value, values, column.best) for value in values
    ]


def _rank(value: float, values: Sequence[float | None], best: int) -> str:
    """` (2)`: one other value is better."""
    if best == 0:
        return ""
    better = sum(other is not None and (other - value) * best > 0 for other in values)
    return f" ({better + 1})"
