"""Engine: what engines do inside: batches, queues, caches, utilization, restarts."""

from __future__ import annotations

from typing import Final

from grafana.boards.board import Board

__all__ = ["ENGINE"]

ENGINE: Final = Board(
    uid="wattgate-engine",
    title="Wattgate / Engine",
    description="What engines do inside: batches, queues, caches, utilization, restarts.",
    rows=("fleet", "engine", "efficiency"),
)
