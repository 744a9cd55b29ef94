"""`wattgate status`: what runs, and how it is."""

from __future__ import annotations

import argparse
import json
from typing import Any

from rich.console import Console
from rich.table import Table

from server.cli.client import add_target, call

__all__ = ["add"]


def add(commands: Any) -> None:
    """Add the verb `status`."""
    status = commands.add_parser("status", help="engines, adapters and workers of a running gateway")
    status.add_argument("--json", action="store_true", help="as JSON")
    add_target(status)
    status.set_defaults(run=_status)


def _status(arguments: argparse.Namespace) -> int:
    found = call(arguments, "GET", "/api/status")
    if arguments.json:
        print(json.dumps(found, indent=2))
    else:
        _show(found)
    return 0 if found["state"] == "ready" else 1


def _show(found: dict[str, Any]) -> None:
    console = Console()
    console.print(
        f"wattgate {found['version']}: {found['state']}, {found['workers']} worker(s), {found['gateway_url']}"
    )
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("engine", "serves", "state", "for", "adapters", "memory", "restarts"):
        table.add_column(title, justify="right" if title in {"for", "memory", "restarts"} else "left")
    for engine in found["engines"]:
        table.add_row(
            engine["name"],
            f"{engine['model']}:{engine['variant']}",
            engine["state"],
            _duration(engine["since_s"]),
            ", ".join(engine["adapters"]) or "—",
            f"{engine['memory_bytes'] / 1e9:.2f} GB" if engine["memory_bytes"] else "—",
            str(engine["restarts"]),
        )
    console.print(table)
    for engine in found["engines"]:
        if engine["problem"]:
            console.print(f"{engine['name']}: {engine['problem']}", highlight=False, markup=False)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h"
