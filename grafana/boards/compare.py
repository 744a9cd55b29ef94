"""Compare configurations: what each variant costs and what it gives."""

from __future__ import annotations

from typing import Final

from grafana.boards.board import Board

__all__ = ["COMPARE"]

COMPARE: Final = Board(
    uid="wattgate-compare",
    title="Wattgate / Compare configurations",
    description=(
        "Which configuration to serve: latency, throughput, errors, joules, memory and size of every variant side by "
        "side. The table is sorted by joules a token: its first row with a number is the cheapest."
    ),
    rows=("answers", "configurations", "trade-offs", "efficiency", "latency", "traffic", "energy", "fleet"),
)
