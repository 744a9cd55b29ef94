"""The command line of `python -m quant`.

Heavy modules are imported by the command that needs them: torch takes seconds, `--help` must not.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Final

from quant.commands import COMMANDS
from quant.errors import QuantError

__all__ = ["main"]

_INTERRUPTED: Final = 130  # 128 + SIGINT, as a shell reports it


def main(arguments: Sequence[str]) -> int:
    """Run one command; 0 if it worked, 1 with one line on stderr if it was refused, 2 for a wrong command line."""
    options = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int | None] = options.command
    try:
        return command(options) or 0
    except QuantError as exc:
        print(f"quant: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("quant: interrupted; what was finished stays, what was not is gone.", file=sys.stderr)
        return _INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="wattgate quant", description="Make variants of a checkpoint; judge them.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for group in COMMANDS:
        group.add(commands)
    return parser
