"""The comparison: tables for the terminal and for results.md, and a verdict in sentences."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from loadgen._demo._load import Measured
from loadgen._report import DASH, count, milliseconds

__all__ = ["Grid", "load_grid", "rich_table", "size_grid", "verdict", "write_results"]

_MEGABYTE: Final = 1e6
_ESTIMATED: Final = "estimated"

Grid = tuple[str, Sequence[str], Sequence[Sequence[str]]]
"""Title, headings, rows; the first column names, the others are numbers."""


def load_grid(measured: Sequence[Measured]) -> Grid:
    headings = ("configuration", "req", "err", "TTFT p50", "p95", "ITL p50", "p95", "tok/s", "J/tok")
    return "Under load (times in ms)", headings, [_load_row(one) for one in measured]


def _load_row(one: Measured) -> Sequence[str]:
    figures = one.figures
    first, gap = figures["time_to_first_token_s"], figures["inter_token_latency_s"]
    return (
        one.id,
        count(figures["requests"]),
        count(one.errors),
        milliseconds(first["p50"]),
        milliseconds(first["p95"]),
        milliseconds(gap["p50"]),
        milliseconds(gap["p95"]),
        count(figures["output_tokens_per_s"]),
        count(one.joules_per_output_token, digits=4),
    )


def size_grid(engines: Mapping[str, Mapping[str, Any]]) -> Grid:
    headings = ("variant", "memory MB", "file MB", "bits/weight", "linear only", "parameters")
    return "Size", headings, [_size_row(id_, engine) for id_, engine in engines.items()]


def _size_row(id_: str, engine: Mapping[str, Any]) -> Sequence[str]:
    return (
        id_,
        _megabytes(engine.get("memory_bytes")),
        _megabytes(engine.get("size_bytes"), digits=1),
        count(engine.get("bits_per_weight"), digits=2),
        count(engine.get("linear_bits_per_weight"), digits=2),
        count(engine.get("parameters")),
    )


def _megabytes(value: float | None, *, digits: int = 0) -> str:
    return count(None if value is None else value / _MEGABYTE, digits=digits)


def rich_table(grid: Grid) -> Table:
    """Fits 80 columns."""
    title, headings, rows = grid
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.add_column(headings[0], no_wrap=True)
    for heading in headings[1:]:
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def verdict(measured: Sequence[Measured]) -> list[str]:
    """Which was cheapest, which fastest, and how far to believe it."""
    lines = []
    cheapest = min(
        (one for one in measured if one.joules_per_output_token is not None),
        key=lambda one: one.joules_per_output_token or 0.0,
        default=None,
    )
    fastest = max(
        (one for one in measured if one.figures["output_tokens_per_s"]),
        key=lambda one: one.figures["output_tokens_per_s"],
        default=None,
    )
    if cheapest is not None and fastest is not None:
        lines.append(
            f"Cheapest per token: {cheapest.id} ({count(cheapest.joules_per_output_token, digits=4)} J); "
            f"fastest: {fastest.id} ({count(fastest.figures['output_tokens_per_s'])} tokens/s)."
        )
    lines += _provenance_of_joules(measured)
    if any(DASH in row for row in load_grid(measured)[2]):
        lines.append(f"{DASH} too few samples for that percentile (p95 needs 130), or unknown.")
    lines.append("One short run each: a difference of a few percent means nothing.")
    return lines


def _provenance_of_joules(measured: Sequence[Measured]) -> list[str]:
    scopes = sorted({scope for one in measured for scope in one.scopes})
    methods = sorted({one.method for one in measured if one.method})
    if not scopes:
        return []
    shared = f" Shared among requests by {', '.join(methods)}." if methods else ""
    if _ESTIMATED in scopes:
        return [f"Joules are estimated from CPU time, not measured: compare them with each other only.{shared}"]
    return [f"Joules are the device's own count (scope: {', '.join(scopes)}), without idle.{shared}"]


def write_results(
    folder: Path, *, measured: Sequence[Measured], engines: Mapping[str, Mapping[str, Any]], problems: Sequence[str]
) -> None:
    """`results.json`, `results.md`, and `results.svg`: the tables as a terminal shows them."""
    folder.mkdir(parents=True, exist_ok=True)
    data = {
        "configurations": [
            {"id": one.id, "joules_per_output_token": one.joules_per_output_token, "scopes": one.scopes, **one.figures}
            for one in measured
        ],
        "engines": list(engines.values()),
        "verdict": verdict(measured),
        "problems": list(problems),
    }
    (folder / "results.json").write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
    parts = [_markdown(load_grid(measured)), _markdown(size_grid(engines)), "\n".join(verdict(measured))]
    (folder / "results.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    (folder / "results.svg").write_text(_picture(measured, engines), encoding="utf-8")


def _picture(measured: Sequence[Measured], engines: Mapping[str, Mapping[str, Any]]) -> str:
    console = Console(record=True, file=io.StringIO(), width=80)
    console.print("$ make demo", highlight=False)
    for grid in (load_grid(measured), size_grid(engines)):
        console.print()
        console.print(rich_table(grid))
    console.print()
    for line in verdict(measured):
        console.print(line, markup=False, highlight=False)
    # Without the web fonts that rich names: a picture fetches nothing.
    return re.sub(r"@font-face \{.*?\}", "", console.export_svg(title="wattgate demo"), flags=re.DOTALL)


def _markdown(grid: Grid) -> str:
    title, headings, rows = grid
    rule = ["---", *("---:" for _ in headings[1:])]
    return "\n".join([f"## {title}", "", *(f"| {' | '.join(row)} |" for row in (headings, rule, *rows))])
