"""One value against another, a point a configuration: who is best at both, and who is worse at both."""

from __future__ import annotations

from dataclasses import dataclass

from grafana_foundation_sdk.builders.common import VizLegendOptions, VizTooltipOptions
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.builders.xychart import Panel as XYChartPanel
from grafana_foundation_sdk.builders.xychart import XychartFieldConfigPointSize
from grafana_foundation_sdk.models.common import LegendDisplayMode, LegendPlacement, SortOrder, TooltipDisplayMode
from grafana_foundation_sdk.models.dashboard import DataTransformerConfig, DynamicConfigValue, Panel
from grafana_foundation_sdk.models.prometheus import PromQueryFormat
from grafana_foundation_sdk.models.xychart import SeriesMapping, XYShowMode

from grafana.queries import Query

__all__ = ["Scatter"]

_POINT = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Scatter:
    """The first query is the horizontal axis, the second the vertical one; a series a value of `name`."""

    x: str
    y: str
    x_unit: str
    y_unit: str
    name: str
    """The label that tells points apart."""

    def panel(self, *, no_value: str, unit: str) -> Panel:
        fields = ((self.x, self.x_unit), (self.y, self.y_unit))
        builder = (
            XYChartPanel()
            .unit(unit)
            .no_value(no_value)
            .mapping(SeriesMapping.AUTO)
            .show(XYShowMode.POINTS)
            .point_size(XychartFieldConfigPointSize().fixed(_POINT))
            .legend(
                VizLegendOptions()
                .display_mode(LegendDisplayMode.LIST)
                .placement(LegendPlacement.BOTTOM)
                .show_legend(True)
                .calcs([])
            )
            .tooltip(VizTooltipOptions().mode(TooltipDisplayMode.SINGLE).sort(SortOrder.NONE))
            .with_transformation(DataTransformerConfig(id_val="merge", options={}))
            .with_transformation(DataTransformerConfig(id_val="organize", options=self._organize()))
            .with_transformation(
                DataTransformerConfig(id_val="partitionByValues", options={"fields": [self.name], "keepFields": False})
            )
        )
        for name, of in fields:
            builder.override_by_name(
                name,
                [
                    DynamicConfigValue(id_val="unit", value=of),
                    DynamicConfigValue(id_val="custom.axisLabel", value=name),
                ],
            )
        return builder.build()

    def target(self, query: Query) -> Dataquery:
        return Dataquery().expr(query.expr).legend_format(query.legend).instant().format(PromQueryFormat.TABLE)

    def _organize(self) -> dict[str, object]:
        fields = ["Value #A", "Value #B", self.name]
        return {
            "excludeByName": {},
            "includeByName": dict.fromkeys(fields, True),
            "indexByName": {field: index for index, field in enumerate(fields)},
            "renameByName": {"Value #A": self.x, "Value #B": self.y},
        }
