"""Gateway: what the gateway itself adds, whom it lets in, what it loses, and how it fares."""

from __future__ import annotations

from typing import Final

from grafana.boards.board import Board

__all__ = ["GATEWAY"]

GATEWAY: Final = Board(
    uid="wattgate-gateway",
    title="Wattgate / Gateway",
    description="What the gateway itself adds, whom it lets in, what it loses, and how it fares.",
    rows=("gateway",),
)
