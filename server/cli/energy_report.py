"""`wattgate energy report`: joules, tokens, grams and cost of a period, from the ledger."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, Final
from urllib.parse import urlencode

from rich.console import Console
from rich.table import Table
from rich.text import Text

from server.accounts import Account
from server.cli.client import add_target, call
from server.ledger.csv_lines import csv_lines
from server.ledger.energy_view import energy_columns, energy_flat

__all__ = ["add"]

_UNKNOWN: Final = "—"
_SIX_DIGITS: Final = 100_000
_STEPS: Final = (
    (1e15, 1e15, "P"),
    (1e12, 1e12, "T"),
    (1e9, 1e9, "G"),
    (1e6, 1e6, "M"),
    (1e3, 1e3, "k"),
    (0.1, 1.0, ""),
    (1e-3, 1e-3, "m"),
    (1e-6, 1e-6, "u"),
    (0.0, 1e-9, "n"),
)
"""From this size on, divided by that, with this prefix."""
_WHOLE: Final = 0.9995
_SHORT: Final = {Account.UNATTRIBUTED: "unatt"}

_Cell = Callable[[dict[str, Any]], str]


def add(verbs: Any) -> None:
    """Add the verb `report` to `wattgate energy`."""
    report = verbs.add_parser(
        "report",
        help="joules, tokens, CO2e and cost of a period, from the ledger",
        description="Sums are kept by the hour, so the period is widened to whole hours; the first line says to which.",
    )
    report.add_argument(
        "--by", default="tenant", metavar="LABELS", help="tenant, adapter, variant, engine, model; several: a,b"
    )
    report.add_argument("--from", dest="from_", metavar="TIME", help="ISO date or time; default: 30 days before --to")
    report.add_argument("--to", metavar="TIME", help="likewise; default: now")
    form = report.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="as JSON")
    form.add_argument("--csv", action="store_true", help="as CSV")
    form.add_argument("--markdown", action="store_true", help="as a Markdown table")
    add_target(report)
    report.set_defaults(run=_report)


def _report(arguments: argparse.Namespace) -> int:
    asked = {"by": arguments.by, "from": arguments.from_, "to": arguments.to}
    query = urlencode({name: value for name, value in asked.items() if value is not None})
    found = call(arguments, "GET", f"/api/energy?{query}")
    if arguments.json:
        print(json.dumps(found, indent=2))
    elif arguments.csv:
        _print_csv(found)
    elif arguments.markdown:
        _print_markdown(found)
    else:
        _print_table(found)
    return 0


def _print_csv(found: dict[str, Any]) -> None:
    columns = energy_columns(found)
    for lines in csv_lines(columns, energy_flat(found["rows"], columns)):
        sys.stdout.write(lines.replace("\r\n", "\n"))


def _print_markdown(found: dict[str, Any]) -> None:
    columns = _columns(found)
    print(_period(found) + "\n")
    print("| " + " | ".join(columns) + " |")
    print("|" + "|".join(" --- " if name in found["by"] else " ---: " for name in columns) + "|")
    for row in _rows(found):
        print("| " + " | ".join(columns[name](row).replace("|", "\\|") for name in columns) + " |")


def _print_table(found: dict[str, Any]) -> None:
    columns = _columns(found)
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for name in columns:
        label = name in found["by"]  # a long name takes several lines, so that numbers are never cut
        table.add_column(name, justify="left" if label else "right", overflow="fold", no_wrap=not label)
    for row in _rows(found):
        table.add_row(*(Text(columns[name](row)) for name in columns))
    console = Console()
    console.print(_period(found), highlight=False, markup=False)
    console.print(table if found["rows"] else "nothing in this period")
    _explain(console, found)


def _explain(console: Console, found: dict[str, Any]) -> None:
    total = found["total"]
    if "estimated" in total["scopes"]:
        console.print("Joules are estimated, not measured: this machine has no energy counter.", highlight=False)
    for what, coverage in (("CO2e", total["co2e_coverage"]), ("Cost", total["cost_coverage"])):
        if coverage is not None and 0 < coverage < _WHOLE:
            console.print(f"{what} was known for {coverage:.0%} of the joules.", highlight=False)


def _period(found: dict[str, Any]) -> str:
    return f"{found['from']} to {found['to']}"


def _rows(found: dict[str, Any]) -> list[dict[str, Any]]:
    """With their sum, where there are several."""
    total = found["total"] | dict.fromkeys(found["by"], "") | {found["by"][0]: "total"}
    return [*found["rows"], total] if len(found["rows"]) > 1 else found["rows"]


def _columns(found: dict[str, Any]) -> dict[str, _Cell]:
    """Title → text of a cell; what no row knows has no column."""
    total = found["total"]
    columns: dict[str, _Cell] = {name: partial(_label, name) for name in found["by"]}
    columns["req."] = lambda row: _short(row["requests"])
    columns["prompt"] = lambda row: _short(row["prompt_tokens"])
    columns["output"] = lambda row: _short(row["output_tokens"])
    columns["J"] = lambda row: _short(row["joules"]["active"])
    for account in (Account.IDLE, Account.UNATTRIBUTED, Account.OTHER):
        if total["joules"][account] is not None:
            columns[_SHORT.get(account, account)] = partial(_account, account)
    columns["J/tok"] = lambda row: _short(row["joules_per_output_token"])
    if total["co2e_grams"] is not None:
        columns["gCO2"] = lambda row: _short(row["co2e_grams"])
    for currency in total["costs"]:
        columns[currency] = partial(_cost, currency)
    return columns


def _label(name: str, row: dict[str, Any]) -> str:
    return str(row[name])


def _account(account: Account, row: dict[str, Any]) -> str:
    return _short(row["joules"][account])


def _cost(currency: str, row: dict[str, Any]) -> str:
    return _short(row["costs"].get(currency))


def _short(value: float | None) -> str:
    """At most six characters: `12`, `0.123`, `12.3m`, `1.23k`, `456M`."""
    if value is None:
        return _UNKNOWN
    if value == 0 or (isinstance(value, int) and value < _SIX_DIGITS):
        return f"{value:.0f}"
    divisor, prefix = next((divisor, prefix) for least, divisor, prefix in _STEPS if value >= _WHOLE * least)
    return f"{value / divisor:#.3g}".rstrip(".") + prefix
