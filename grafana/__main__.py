"""`python -m grafana generate|check`: writes or compares the dashboards' JSON."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from grafana.generate import DASHBOARDS, differences, generate

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Status 0: done, or nothing differs; 1: something differs; 2: wrong arguments."""
    parser = argparse.ArgumentParser(prog="python -m grafana", description="Dashboards as code.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("generate", help="write the JSON of every dashboard")
    commands.add_parser("check", help="compare the JSON with its source; status 1 and a summary if it differs")
    parser.add_argument("--folder", type=Path, default=DASHBOARDS, help="where the JSON lies (default: %(default)s)")
    chosen = parser.parse_args(arguments)
    return _generate(chosen.folder) if chosen.command == "generate" else _check(chosen.folder)


def _generate(folder: Path) -> int:
    for path in generate(folder):
        print(f"wrote {path}")
    return 0


def _check(folder: Path) -> int:
    found = differences(folder)
    if not found:
        return 0
    print("\n".join(found), file=sys.stderr)
    print("The dashboards differ from their source: run `python -m grafana generate`.", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
