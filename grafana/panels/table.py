"""One row a configuration or engine, one column a query or label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from grafana_foundation_sdk.builders.common import TableSortByFieldState
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.builders.table import Panel as TablePanel
from grafana_foundation_sdk.models.common import FieldTextAlignment
from grafana_foundation_sdk.models.dashboard import DataTransformerConfig, DynamicConfigValue, Panel
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from grafana.queries import Query

__all__ = ["Column", "Table"]

_UNKNOWN = "—"
"""In a cell: no such measurement; never 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column: a field of the joined result, under a name that people read."""

    field: str
    """A label, or `Value #A` for the first query's value, `Value #B` for the second's, …"""
    name: str
    unit: str | None = None
    """Grafana's unit id; None: text."""
    decimals: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """The queries' results of now, joined by their labels; only the named columns are shown, in this order."""

    columns: Sequence[Column]
    sort_by: str
    """Name of the column that sorts the rows, smallest first; Grafana puts empty cells before the smallest."""

    def panel(self, *, no_value: str, unit: str) -> Panel:
        del (
            no_value
        )  # Grafana writes it into every empty cell: there it is the mark for unknown; the description says why
        builder = (
            TablePanel()
            .unit(unit)
            .no_value(_UNKNOWN)
            .align(FieldTextAlignment.AUTO)  # Grafana's default, written out: its typed reader would add it
            .sort_by([TableSortByFieldState().display_name(self.sort_by).desc(False)])
            .with_transformation(DataTransformerConfig(id_val="merge", options={}))
            .with_transformation(DataTransformerConfig(id_val="organize", options=self._organize()))
        )
        for column in self.columns:
            properties = _properties(column)
            if properties:
                builder.override_by_name(column.name, properties)
        return builder.build()

    def target(self, query: Query) -> Dataquery:
        return Dataquery().expr(query.expr).legend_format(query.legend).instant().format(PromQueryFormat.TABLE)

    def _organize(self) -> dict[str, Any]:
        return {
            "excludeByName": {},
            "includeByName": {column.field: True for column in self.columns},
            "indexByName": {column.field: index for index, column in enumerate(self.columns)},
            "renameByName": {column.field: column.name for column in self.columns},
        }


def _properties(column: Column) -> list[DynamicConfigValue]:
    known = {"unit": column.unit, "decimals": column.decimals}
    return [DynamicConfigValue(id_val=key, value=value) for key, value in known.items() if value is not None]
