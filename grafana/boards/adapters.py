"""Adapters: where adapters are loaded, who uses them, what they cost."""

from __future__ import annotations

from typing import Final

from grafana.boards.board import Board

__all__ = ["ADAPTERS"]

ADAPTERS: Final = Board(
    uid="wattgate-adapters",
    title="Wattgate / Adapters",
    description="Where adapters are loaded, who uses them, what they cost.",
    rows=("adapters",),
)
