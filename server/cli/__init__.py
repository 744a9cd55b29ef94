"""The command `wattgate`: one file a group of verbs, one table.

To add a command: a file with `add(commands)` that adds a parser and sets `run`, and a line in `_GROUPS`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Final

from server.cli import adapter, efficiency, energy, hand_over, key, meter, reload, serve, status
from server.console import EXIT_USAGE
from server.errors import WattgateError

__all__ = ["main"]

_GROUPS: Final = (serve, reload, status, energy, efficiency, adapter, key, meter, hand_over)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse and run one command; the exit status is 0 if it did what it says, 2 if the input was wrong."""
    parser = argparse.ArgumentParser(
        prog="wattgate",
        description="An OpenAI-compatible gateway that says what each configuration costs.",
        epilog="The examples in deploy/examples/ are a place to start: wattgate up --config deploy/examples/demo.yaml",
    )
    parser.add_argument("--version", action="version", version=f"wattgate {version('wattgate')}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for group in _GROUPS:
        group.add(commands)
    arguments, rest = parser.parse_known_args(argv)
    if rest and not getattr(arguments, "takes_rest", False):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    arguments.rest = rest
    try:
        return int(arguments.run(arguments))
    except WattgateError as exc:
        print(f"wattgate: {exc}", file=sys.stderr)
        return EXIT_USAGE
    except KeyboardInterrupt:
        return 130
