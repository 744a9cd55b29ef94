"""One number a series, as large as fits: what holds now, or the first of a ranking."""

from __future__ import annotations

from dataclasses import dataclass

from grafana_foundation_sdk.builders.common import ReduceDataOptions
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.builders.stat import Panel as StatPanel
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    BigValueGraphMode,
    BigValueJustifyMode,
    BigValueTextMode,
    VizOrientation,
)
from grafana_foundation_sdk.models.dashboard import Panel

from grafana.queries import Query

__all__ = ["Stat"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stat:
    """The newest value."""

    named: bool = False
    """Show the series' name with it: then the panel says who, and not only how much."""

    def panel(self, *, no_value: str, unit: str) -> Panel:
        return (
            StatPanel()
            .unit(unit)
            .no_value(no_value)
            .reduce_options(ReduceDataOptions().calcs(["lastNotNull"]).values(False).fields(""))
            .graph_mode(BigValueGraphMode.NONE)
            .color_mode(BigValueColorMode.NONE)
            .justify_mode(BigValueJustifyMode.AUTO)
            .orientation(VizOrientation.AUTO)
            .text_mode(BigValueTextMode.VALUE_AND_NAME if self.named else BigValueTextMode.VALUE)
            .build()
        )

    def target(self, query: Query) -> Dataquery:
        return Dataquery().expr(query.expr).legend_format(query.legend).instant()
