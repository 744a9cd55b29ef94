"""A dashboard: a purpose and its rows, drawn on Grafana's grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from grafana_foundation_sdk.builders.dashboard import Dashboard as DashboardBuilder
from grafana_foundation_sdk.models.dashboard import (
    Dashboard,
    DashboardCursorSync,
    DashboardDashboardTemplating,
    DashboardLink,
    DashboardLinkType,
    GridPos,
    RowPanel,
)
from grafana_foundation_sdk.models.dashboard import Panel as PanelModel

from grafana.panels import draw
from grafana.rows import ROWS
from grafana.variables import variables

__all__ = ["GRID_COLUMNS", "TAG", "Board", "build"]

GRID_COLUMNS: Final = 24
TAG: Final = "wattgate"
"""On every dashboard of the project; the links between them go by it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """One dashboard."""

    uid: str
    """Stable: links and bookmarks hold it. At most 40 characters."""
    title: str
    description: str
    rows: Sequence[str]
    """Keys of `ROWS`, top to bottom."""


def build(board: Board) -> Dashboard:
    """The dashboard in Grafana's typed model."""
    model = (
        DashboardBuilder(board.title)
        .uid(board.uid)
        .description(board.description)
        .tags([TAG])
        .readonly()
        .refresh("10s")
        .time("now-15m", "now")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .build()
    )
    model.links = [_link_to_siblings()]
    model.templating = DashboardDashboardTemplating(list_val=variables())
    model.panels = _placed(board)
    return model


def _link_to_siblings() -> DashboardLink:
    return DashboardLink(
        title="Wattgate",
        type_val=DashboardLinkType.DASHBOARDS,
        icon="external link",
        tooltip="The other dashboards, with this time range and selection",
        tags=[TAG],
        as_dropdown=True,
        include_vars=True,
        keep_time=True,
    )


def _placed(board: Board) -> list[PanelModel | RowPanel]:
    """Rows one below the other, their panels left to right; a full line starts the next."""
    placed: list[PanelModel | RowPanel] = []
    y = 0
    for key in board.rows:
        row = ROWS[key]
        heading = GridPos(h=1, w=GRID_COLUMNS, x=0, y=y)
        placed.append(RowPanel(id_val=len(placed) + 1, title=row.title, grid_pos=heading, panels=[]))
        x, y, line_height = 0, y + 1, 0
        for panel in row.panels:
            if x + panel.width > GRID_COLUMNS:
                x, y, line_height = 0, y + line_height, 0
            model = draw(panel)
            model.id_val = len(placed) + 1
            model.grid_pos = GridPos(h=panel.height, w=panel.width, x=x, y=y)
            placed.append(model)
            x, line_height = x + panel.width, max(line_height, panel.height)
        y += line_height
    return placed
