"""`wattgate efficiency`: the six EfficientLLM metrics and what stands beside them, a column a configuration."""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlencode

from rich.console import Console
from rich.table import Table

from server.cli.client import add_target, call

__all__ = ["add"]

_ABSENT: Final = "—"
_GAP: Final = 2
_PREFIXES: Final = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "µ"))
_WITH_UNIT: Final[Mapping[str, str]] = {"s": "s", "J": "J", "W": "W", "g": "g", "bytes": "B"}
"""Units that stand beside the value; the others are told by the line's title."""
_PLAIN: Final = frozenset({"ratio", "bits", "tokens/s", "requests/s"})
"""Shown without prefix."""

Row = Mapping[str, Any]


def add(commands: Any) -> None:
    """Add the verb `efficiency`."""
    efficiency = commands.add_parser("efficiency", help="the six EfficientLLM metrics and companions, ranked")
    efficiency.add_argument(
        "--by", default="variant", metavar="LABELS", help="engine, variant, adapter, precision; several by commas"
    )
    efficiency.add_argument(
        "--since-start", action="store_true", help="all since the control plane started, not the last window"
    )
    efficiency.add_argument("--all", action="store_true", help="the less common measures as well")
    form = efficiency.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="as JSON, with the reason for each absent value")
    form.add_argument("--markdown", action="store_true", help="as a Markdown table")
    add_target(efficiency)
    efficiency.set_defaults(run=_efficiency)


def _efficiency(arguments: argparse.Namespace) -> int:
    asked = urlencode({"by": arguments.by, "over": "start" if arguments.since_start else "window"})
    found = call(arguments, "GET", f"/api/efficiency?{asked}")
    if arguments.json:
        print(json.dumps(found, indent=2))
    elif not found["rows"]:
        print("no figures yet: the control plane has just started")
    elif arguments.markdown:
        print("\n".join(_markdown(found, everything=arguments.all)))
    else:
        _show(found, Console(highlight=False), everything=arguments.all)
    return 0


# --- what both forms share --------------------------------------------------------------------------------------------


def _models(found: Row) -> Mapping[str, list[Row]]:
    """Rows are compared within a model, so each model has its own table."""
    models: defaultdict[str, list[Row]] = defaultdict(list)
    for row in found["rows"]:
        models[row["group"]["model"]].append(row)
    return models


def _title(found: Row, model: str) -> str:
    seconds = found["seconds"]
    over = "since the start" if found["over"] == "start" else f"last {seconds:.0f} s"
    return f"{model}, {over}"


def _names(found: Row, rows: Iterable[Row]) -> list[str]:
    labels = [label for label in found["by"] if label != "model"] or ["model"]
    return ["/".join(row["group"][label] for label in labels) for row in rows]


def _measures(found: Row, *, everything: bool) -> list[Row]:
    return [measure for measure in found["measures"] if measure["brief"] or everything]


def _told(rows: Sequence[Row], measures: Iterable[Row]) -> list[Row]:
    """The six, and what anything is known of: why the others are absent stands below."""
    paper = next(iter(measures), {"section": None})["section"]
    return [
        measure
        for measure in measures
        if measure["section"] == paper or any(row["values"][measure["key"]]["value"] is not None for row in rows)
    ]


def _cell(cell: Row, *, rank: str) -> str:
    if cell["value"] is None:
        return _ABSENT
    shown = _quantity(cell["value"], cell["unit"])
    return shown if cell["rank"] is None else f"{shown} {rank.format(cell['rank'])}"


def _quantity(value: float, unit: str) -> str:
    """Three digits; seconds, joules, watts, grams and bytes with their unit."""
    if value == 0 or unit in _PLAIN:
        return f"{value:#.3g}".rstrip(".") if abs(value) < 1000 else f"{value:.0f}"
    factor, prefix = next((pair for pair in _PREFIXES if abs(value) >= pair[0] * 0.9995), _PREFIXES[-1])
    if unit == "s" and factor > 1:
        factor, prefix = 1.0, ""
    shown = f"{value / factor:#.3g}".rstrip(".") if abs(value / factor) < 1000 else f"{value / factor:.0f}"
    return f"{shown} {prefix}{_WITH_UNIT.get(unit, '')}".rstrip()


def _pareto(row: Row) -> str:
    return {None: _ABSENT, True: "yes", False: "no"}[row["pareto"]]


def _reasons(rows: Sequence[Row], measures: Iterable[Row]) -> Iterator[tuple[str, str]]:
    """The titles of the measures that are absent, by the reason; once each."""
    titles: defaultdict[str, dict[str, None]] = defaultdict(dict)
    for measure in measures:
        for row in rows:
            if why := row["values"][measure["key"]].get("why_absent"):
                titles[why][measure["title"]] = None
    for why, absent in titles.items():
        yield ", ".join(absent), why


def _scopes(rows: Iterable[Row]) -> str:
    return ", ".join(sorted({scope for row in rows for scope in row["energy_scopes"]}))


# --- the terminal -----------------------------------------------------------------------------------------------------


def _show(found: Row, console: Console, *, everything: bool) -> None:
    measures = _measures(found, everything=everything)
    for model, rows in _models(found).items():
        told = _told(rows, measures)
        for part in _that_fit(found, rows, told, console.width):
            console.print(_table(found, _title(found, model), part, told))
            console.print()
        if scopes := _scopes(rows):
            console.print(f"energy: {scopes}", markup=False)
        console.print("#1 is best; equals share a rank; there is no score over all lines", markup=False)
        for titles, why in _reasons(rows, measures):
            console.print(f"{_ABSENT} {titles}: {why}", markup=False, style="dim")


def _that_fit(found: Row, rows: Sequence[Row], measures: Sequence[Row], width: int) -> Iterator[Sequence[Row]]:
    """As many columns at a time as the terminal is wide."""
    titles = max(len(measure["title"]) for measure in measures)
    start, left = 0, width - titles
    for place, row in enumerate(rows):
        needed = _GAP + max(
            len(_names(found, [row])[0]),
            *(len(_cell(row["values"][measure["key"]], rank="#{}")) for measure in measures),
        )
        if needed > left and place > start:
            yield rows[start:place]
            start, left = place, width - titles
        left -= needed
    yield rows[start:]


def _table(found: Row, title: str, rows: Sequence[Row], measures: Sequence[Row]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold")
    table.add_column(title, no_wrap=True)
    for name in _names(found, rows):
        table.add_column(name, justify="right", no_wrap=True)
    section = None
    for measure in measures:
        if measure["section"] != section:
            section = measure["section"]
            table.add_row(f"[italic]{section}[/]")
        table.add_row(measure["title"], *(_cell(row["values"][measure["key"]], rank="[dim]#{}[/]") for row in rows))
    table.add_row("on the Pareto front", *(_pareto(row) for row in rows))
    return table


# --- Markdown ---------------------------------------------------------------------------------------------------------


def _markdown(found: Row, *, everything: bool) -> Iterator[str]:
    measures = _measures(found, everything=everything)
    for model, rows in _models(found).items():
        yield f"### {_title(found, model)}\n"
        yield _line("", *_names(found, rows))
        yield _line("---", *("---:" for _ in rows))
        for measure in _told(rows, measures):
            yield _line(measure["title"], *(_cell(row["values"][measure["key"]], rank="({})") for row in rows))
        yield _line("on the Pareto front", *(_pareto(row) for row in rows))
        yield ""
        if scopes := _scopes(rows):
            yield f"Energy: {scopes}. In parentheses: ranks, 1 is best.\n"
        for titles, why in _reasons(rows, measures):
            yield f"- {titles}: {why}"
        yield ""


def _line(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"
