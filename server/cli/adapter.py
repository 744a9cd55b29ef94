"""`wattgate adapter load|unload|list`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from server.cli.client import add_target, call

__all__ = ["add"]


def add(commands: Any) -> None:
    """Add the verb group `adapter`."""
    group = commands.add_parser("adapter", help="load, unload and list adapters of a running gateway")
    verbs = group.add_subparsers(dest="verb", metavar="VERB", required=True)

    load = verbs.add_parser("load", help="load an adapter on every replica that can take it")
    load.add_argument("name", help="the public id, as clients will write it")
    load.add_argument("path", type=Path, help="folder with adapter_config.json, on the gateway's machine")
    load.add_argument("--model", required=True, help="the base model's public id")
    load.add_argument("--variant", action="append", dest="variants", help="only on this variant; may be repeated")
    load.set_defaults(run=_load)

    unload = verbs.add_parser("unload", help="take an adapter from every replica")
    unload.add_argument("name")
    unload.set_defaults(run=_unload)

    listing = verbs.add_parser("list", help="adapters, and where each is")
    listing.add_argument("--json", action="store_true", help="as JSON")
    listing.set_defaults(run=_list)
    for verb in (load, unload, listing):
        add_target(verb)


def _load(arguments: argparse.Namespace) -> int:
    body = {
        "name": arguments.name,
        "model": arguments.model,
        "path": str(arguments.path.expanduser().resolve()),
        "variants": arguments.variants,
    }
    _show([call(arguments, "POST", "/api/adapters", body)])
    return 0


def _unload(arguments: argparse.Namespace) -> int:
    call(arguments, "DELETE", "/api/adapters", {"name": arguments.name})
    print(f"{arguments.name}: unloaded")
    return 0


def _list(arguments: argparse.Namespace) -> int:
    adapters = call(arguments, "GET", "/api/adapters")["adapters"]
    if arguments.json:
        print(json.dumps(adapters, indent=2))
    else:
        _show(adapters)
    return 0


def _show(adapters: list[dict[str, Any]]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("adapter", "model", "engine", "state", "why"):
        table.add_column(title)
    for adapter in adapters:
        for engine, placed in adapter["replicas"].items():
            table.add_row(adapter["name"], adapter["model"], engine, placed["state"], placed["reason"] or "")
    Console().print(table if adapters else "no adapters")
