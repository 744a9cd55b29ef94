"""Which state a thing was in, as coloured bands over time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from grafana_foundation_sdk.builders.common import VizLegendOptions
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.builders.statetimeline import Panel as StateTimelinePanel
from grafana_foundation_sdk.models.common import LegendDisplayMode, LegendPlacement, VisibilityMode
from grafana_foundation_sdk.models.dashboard import Panel, ValueMap, ValueMappingResult

from grafana.queries import Query

__all__ = ["States"]


@dataclass(frozen=True, slots=True, kw_only=True)
class States:
    """One band a series; a value is the code of a state, counted from 1."""

    states: Sequence[tuple[str, str]]
    """Name and colour of each state, by code."""

    def panel(self, *, no_value: str, unit: str) -> Panel:
        named = {
            str(code): ValueMappingResult(text=state, color=color, index=code)
            for code, (state, color) in enumerate(self.states, start=1)
        }
        return (
            StateTimelinePanel()
            .unit(unit)
            .no_value(no_value)
            .fill_opacity(70)  # Grafana's default, written out: its typed reader would add it
            .line_width(0)
            .mappings([ValueMap(options=named)])
            .show_value(VisibilityMode.AUTO)
            .legend(
                VizLegendOptions()
                .display_mode(LegendDisplayMode.LIST)
                .placement(LegendPlacement.BOTTOM)
                .show_legend(True)
            )
            .build()
        )

    def target(self, query: Query) -> Dataquery:
        return Dataquery().expr(query.expr).legend_format(query.legend).range()
