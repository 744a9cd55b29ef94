"""Dashboards: one file each, all in this table; the key is the name of the generated file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from grafana.boards.board import Board, build
from grafana.boards.compare import COMPARE

__all__ = ["BOARDS", "Board", "build"]

BOARDS: Final[Mapping[str, Board]] = {
    "compare": COMPARE,
}
