"""Energy and carbon: where every joule goes, what it emits and costs, and how far the figures can be trusted."""

from __future__ import annotations

from typing import Final

from grafana.boards.board import Board

__all__ = ["ENERGY"]

ENERGY: Final = Board(
    uid="wattgate-energy",
    title="Wattgate / Energy and carbon",
    description="Where every joule goes, what it emits and costs, and how far the figures can be trusted.",
    rows=("power", "attribution", "carbon"),
)
