"""A table of one value by two labels, coloured by it."""

from __future__ import annotations

from dataclasses import dataclass

from grafana_foundation_sdk.builders.dashboard import FieldColor
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.builders.table import Panel as TablePanel
from grafana_foundation_sdk.models.common import FieldTextAlignment
from grafana_foundation_sdk.models.dashboard import DataTransformerConfig, FieldColorModeId, MatcherConfig, Panel
from grafana_foundation_sdk.models.dashboard import DynamicConfigValue as Property
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from grafana.queries import Query

__all__ = ["Matrix"]

_UNKNOWN = "—"


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrix:
    """Of one query: a row a value of `rows`, a column a value of `columns`."""

    rows: str
    columns: str

    def panel(self, *, no_value: str, unit: str) -> Panel:
        del no_value  # as in a table: it would stand in every empty cell
        pivot = {
            "rowField": self.rows,
            "columnField": self.columns,
            "valueField": "Value",
            "emptyValue": "null",
        }
        return (
            TablePanel()
            .unit(unit)
            .no_value(_UNKNOWN)
            .align(FieldTextAlignment.AUTO)
            .color_scheme(FieldColor().mode(FieldColorModeId.CONTINUOUS_BL_YL_RD))
            .with_transformation(DataTransformerConfig(id_val="groupingToMatrix", options=pivot))
            .with_override(
                MatcherConfig(id_val="byType", options="number"),
                [Property(id_val="custom.cellOptions", value={"type": "color-background", "mode": "basic"})],
            )
            .build()
        )

    def target(self, query: Query) -> Dataquery:
        return Dataquery().expr(query.expr).legend_format(query.legend).instant().format(PromQueryFormat.TABLE)
