"""`python -m grafana generate|check`: writes or compares dashboards and rules."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from grafana.generate import DASHBOARDS, RULE_FILES, differences, generate

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Status 0: done, or nothing differs; 1: something differs; 2: wrong arguments."""
    parser = argparse.ArgumentParser(prog="python -m grafana", description="Dashboards and rules as code.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("generate", help="write the JSON of every dashboard and the YAML of all rules")
    commands.add_parser("check", help="compare the files with their source; status 1 and a summary if they differ")
    parser.add_argument("--folder", type=Path, default=DASHBOARDS, help="where the JSON lies (default: %(default)s)")
    parser.add_argument("--rules", type=Path, default=RULE_FILES, help="where the rules lie (default: %(default)s)")
    chosen = parser.parse_args(arguments)
    run = _generate if chosen.command == "generate" else _check
    return run(chosen.folder, chosen.rules)


def _generate(folder: Path, rules: Path) -> int:
    for path in generate(folder, rules):
        print(f"wrote {path}")
    return 0


def _check(folder: Path, rules: Path) -> int:
    found = differences(folder, rules)
    if not found:
        return 0
    print("\n".join(found), file=sys.stderr)
    print("Dashboards or rules differ from their source: run `python -m grafana generate`.", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
