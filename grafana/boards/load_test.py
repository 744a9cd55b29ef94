"""Load test: what configurations do under an announced load: the same questions as on Compare, beside the run."""

from __future__ import annotations

from typing import Final

from grafana.boards.board import Board

__all__ = ["LOAD_TEST"]

LOAD_TEST: Final = Board(
    uid="wattgate-load-test",
    title="Wattgate / Load test",
    description="What configurations do under an announced load: the same questions as on Compare, beside the run.",
    rows=("load", "traffic", "latency", "energy", "engine"),
)
