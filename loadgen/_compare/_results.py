"""results.json, results.md, report.html, and the tables in a terminal."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from loadgen._compare._analysis import Analysis
from loadgen._compare._baseline import Regression
from loadgen._compare._design import TWIN
from loadgen._compare._pareto import Point
from loadgen._compare._ranks import ServerView
from loadgen._compare._store import write_text
from loadgen._compare._tables import Grid

__all__ = ["Results", "show", "write"]

_SCHEMA = 1
_PROVENANCE = ("commit", "versions", "machine", "device", "engines", "serving")


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """All that is said at the end."""

    analysis: Analysis
    server: ServerView
    points: Sequence[Point]
    verdict: Sequence[str]
    grids: Sequence[Grid]
    regressions: Sequence[Regression]


def write(results: Results, folder: Path, *, html: str) -> None:
    write_text(folder / "results.json", json.dumps(_to_json(results, folder), indent=1, default=_plain))
    write_text(folder / "results.md", _markdown(results))
    write_text(folder / "report.html", html)


def show(results: Results, console: Console) -> None:
    """Fits 80 columns with three configurations; with more, tables of means become wider."""
    for grid in results.grids:
        console.print()
        # Not as the table's own title: that would be folded to the table's width.
        console.print(grid.title, style="bold", markup=False, highlight=False)
        console.print(_rich(grid))
    console.print()
    for sentence in results.verdict:
        console.print(sentence, markup=False, highlight=False)


def _to_json(results: Results, folder: Path) -> dict[str, Any]:
    analysis = results.analysis
    return {
        "schema": _SCHEMA,
        "plan": analysis.plan.to_json(),
        "plan_hash": analysis.plan.hash(),
        **_provenance(analysis, folder),
        "levels": [asdict(level) for level in analysis.levels],
        "blocks": analysis.blocks,
        "trust": analysis.trust.verdict,
        "verdict": list(results.verdict),
        "findings": [asdict(finding) for finding in (*analysis.twins, *analysis.findings)],
        "pareto": [asdict(point) for point in results.points],
        "server": results.server.to_json(),
        "regressions": [one.to_json() for one in results.regressions],
        "samples": [
            {
                "configuration": name,
                "metric": metric,
                "level": asdict(level) if level else None,
                "values": [values[block] for block in sorted(values)],
            }
            for (name, metric, level), values in analysis.samples.items()
            if not name.endswith(TWIN)
        ],
    }


def _provenance(analysis: Analysis, folder: Path) -> dict[str, Any]:
    """As one of the runs has it; all ran with the same program."""
    for run in analysis.figures:
        file = folder / "runs" / run.key / "summary.json"
        if file.is_file():
            summary = json.loads(file.read_text(encoding="utf-8"))
            return {key: summary[key] for key in _PROVENANCE if key in summary}
    return {}


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    raise TypeError(type(value).__name__)


def _markdown(results: Results) -> str:
    parts = ["# Comparison", *results.verdict]
    for grid in results.grids:
        rule = ("---", *("---:" for _ in grid.headings[1:]))
        lines = [f"| {' | '.join(row)} |" for row in (grid.headings, rule, *grid.rows)]
        parts.append("\n".join([f"## {grid.title}", "", *lines]))
    return "\n\n".join(parts)


def _rich(grid: Grid) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column(grid.headings[0], overflow="fold")
    for heading in grid.headings[1:]:
        table.add_column(heading, justify="right", overflow="fold")
    for row in grid.rows:
        table.add_row(*row)
    return table
