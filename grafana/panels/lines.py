"""Values over time, as lines or as a stack."""

from __future__ import annotations

from dataclasses import dataclass

from grafana_foundation_sdk.builders.common import StackingConfig, VizLegendOptions, VizTooltipOptions
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.builders.timeseries import Panel as TimeseriesPanel
from grafana_foundation_sdk.models.common import (
    LegendDisplayMode,
    LegendPlacement,
    SortOrder,
    StackingMode,
    TooltipDisplayMode,
    VisibilityMode,
)
from grafana_foundation_sdk.models.dashboard import DynamicConfigValue, Panel

from grafana.queries import Query

__all__ = ["Lines"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lines:
    """Lines; or areas on top of each other, with one series as a line over them."""

    stacked: bool = False
    overlay: str | None = None
    """The name of the series that stays a line while the others are stacked."""
    maximum: float | None = None
    """Where the axis ends, for values that cannot be larger."""
    negative: bool = False
    """Values may be below 0; else the axis begins there."""

    def panel(self, *, no_value: str, unit: str) -> Panel:
        legend = (
            VizLegendOptions()
            .display_mode(LegendDisplayMode.TABLE)
            .placement(LegendPlacement.BOTTOM)
            .show_legend(True)
            .calcs(["mean", "lastNotNull"])
        )
        builder = (
            TimeseriesPanel()
            .unit(unit)
            .no_value(no_value)
            .line_width(2)
            .fill_opacity(60 if self.stacked else 0)
            .show_points(VisibilityMode.NEVER)
            .legend(legend)
            .tooltip(VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING))
        )
        if not self.negative:
            builder.min(0)
        if self.maximum is not None:
            builder.max(self.maximum)
        if self.stacked:
            builder.stacking(StackingConfig().mode(StackingMode.NORMAL).group("A"))
        if self.overlay is not None:
            builder.override_by_name(self.overlay, _LINE)
        return builder.build()

    def target(self, query: Query) -> Dataquery:
        return Dataquery().expr(query.expr).legend_format(query.legend).range()


_LINE = [
    DynamicConfigValue(id_val="custom.stacking", value={"mode": "none"}),
    DynamicConfigValue(id_val="custom.fillOpacity", value=0),
    DynamicConfigValue(id_val="custom.lineStyle", value={"fill": "dash", "dash": [8, 6]}),
    DynamicConfigValue(id_val="color", value={"mode": "fixed", "fixedColor": "text"}),
]
