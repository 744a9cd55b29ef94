"""Dashboards: one file each, all in this table; the key is the name of the generated file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from grafana.boards.adapters import ADAPTERS
from grafana.boards.board import Board, build
from grafana.boards.compare import COMPARE
from grafana.boards.energy import ENERGY
from grafana.boards.engine import ENGINE
from grafana.boards.gateway import GATEWAY
from grafana.boards.load_test import LOAD_TEST
from grafana.boards.overview import OVERVIEW

__all__ = ["BOARDS", "Board", "build"]

BOARDS: Final[Mapping[str, Board]] = {
    "overview": OVERVIEW,
    "compare": COMPARE,
    "energy": ENERGY,
    "engine": ENGINE,
    "adapters": ADAPTERS,
    "gateway": GATEWAY,
    "load-test": LOAD_TEST,
}
