"""Kinds of drawing: one file each, all in this table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from grafana.panels.lines import Lines
from grafana.panels.matrix import Matrix
from grafana.panels.panel import Drawing, Panel, draw, ref_id
from grafana.panels.scatter import Scatter
from grafana.panels.stat import Stat
from grafana.panels.states import States
from grafana.panels.table import Column, Table

__all__ = [
    "PANEL_KINDS",
    "Column",
    "Drawing",
    "Lines",
    "Matrix",
    "Panel",
    "Scatter",
    "Stat",
    "States",
    "Table",
    "draw",
    "ref_id",
]

PANEL_KINDS: Final[Mapping[str, type[Drawing]]] = {
    "lines": Lines,
    "matrix": Matrix,
    "scatter": Scatter,
    "stat": Stat,
    "states": States,
    "table": Table,
}
