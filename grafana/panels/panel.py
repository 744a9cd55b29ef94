"""A panel, and the contract of what draws it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.models.dashboard import GridPos
from grafana_foundation_sdk.models.dashboard import Panel as PanelModel

from grafana.queries import Query
from grafana.variables import DATASOURCE

__all__ = ["Drawing", "Panel", "draw", "ref_id"]


class Drawing(Protocol):
    """Draws the results of queries in one of Grafana's ways; a frozen value that holds what only this way needs."""

    def panel(self, *, no_value: str, unit: str) -> PanelModel:
        """A panel of this type with its options, without title, place and queries.

        `unit` is one of Grafana's unit ids; `no_value` is what to say where there is nothing to draw.
        """

    def target(self, query: Query) -> Dataquery:
        """The query in the form that this way of drawing wants: over time, or once as a table."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One question and its answer."""

    title: str
    shows: str
    """What it shows and how to read it: a sentence or two."""
    no_data: str
    """What an empty panel means, as a sentence."""
    unit: str
    """Grafana's unit id: `s`, `bytes`, `watt`, `reqps`, `percentunit`, `si:J/token`, …"""
    drawing: Drawing
    queries: Sequence[Query]
    width: int = 8
    """Of the grid's 24 columns."""
    height: int = 8

    @property
    def metrics(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for query in self.queries for name in query.metrics))

    @property
    def description(self) -> str:
        """What it shows, what no data means, and the metrics it reads."""
        metrics = ", ".join(f"`{name}`" for name in self.metrics)
        return f"{self.shows}\n\nNo data: {self.no_data}\n\nMetrics: {metrics}."


def draw(panel: Panel) -> PanelModel:
    """The panel in Grafana's typed model; its place on the grid is the dashboard's business."""
    model = panel.drawing.panel(no_value=panel.no_data, unit=panel.unit)
    model.title = panel.title
    model.description = panel.description
    model.datasource = DATASOURCE
    model.grid_pos = GridPos(h=panel.height, w=panel.width)
    model.targets = [
        panel.drawing.target(query).datasource(DATASOURCE).ref_id(ref_id(index)).build()
        for index, query in enumerate(panel.queries)
    ]
    return model


def ref_id(index: int) -> str:
    """Grafana's name of a panel's n-th query: A, B, …"""
    return chr(ord("A") + index)
