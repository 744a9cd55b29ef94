"""`wattgate energy`: what requests used, from the ledger or from files."""

from __future__ import annotations

from typing import Any

from server.cli import energy_replay, energy_report

__all__ = ["add"]


def add(commands: Any) -> None:
    """Add the group `energy` and its verbs."""
    group = commands.add_parser("energy", help="joules of a period from the ledger, or of recorded files")
    verbs = group.add_subparsers(dest="verb", metavar="VERB", required=True)
    energy_report.add(verbs)
    energy_replay.add(verbs)
