"""Overview: is it healthy, what is served, and what does it cost now."""

from __future__ import annotations

from typing import Final

from grafana.boards.board import Board

__all__ = ["OVERVIEW"]

OVERVIEW: Final = Board(
    uid="wattgate-overview",
    title="Wattgate / Overview",
    description="Is it healthy, what is served, and what does it cost now?",
    rows=("now", "traffic", "latency", "energy", "fleet"),
)
