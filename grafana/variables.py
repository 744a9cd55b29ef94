"""The choices at the top of every dashboard."""

from __future__ import annotations

from typing import Final

from grafana_foundation_sdk.builders.dashboard import DatasourceVariable, QueryVariable
from grafana_foundation_sdk.models.dashboard import (
    DataSourceRef,
    VariableModel,
    VariableOption,
    VariableRefresh,
    VariableSort,
)

from grafana import queries

__all__ = ["DATASOURCE", "variables"]

DATASOURCE: Final = DataSourceRef(type_val="prometheus", uid="${datasource}")


def variables() -> list[VariableModel]:
    """Data source, model, variant, adapter, engine; each narrows those after it, and all of each is the default."""
    return [
        DatasourceVariable("datasource").label("Data source").type("prometheus").build(),
        _choice("model", "Model", queries.model_values()),
        _choice("variant", "Variant", queries.variant_values()),
        _choice("adapter", "Adapter", queries.adapter_values()),
        _choice("engine", "Engine", queries.engine_values()),
    ]


def _choice(name: str, label: str, query: str) -> VariableModel:
    return (
        QueryVariable(name)
        .label(label)
        .datasource(DATASOURCE)
        .query(query)
        .multi(True)
        .include_all(True)
        .all_value(queries.ALL_VALUE)
        .current(VariableOption(selected=True, text="All", value="$__all"))
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.NATURAL_ASC)
        .build()
    )
