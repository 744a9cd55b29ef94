"""The only folder that writes PromQL: of panels, and of rules."""

from __future__ import annotations

from grafana.queries.configurations import (
    adapter_values,
    engine_facts,
    engine_state_code,
    engine_values,
    error_ratio,
    joules_per_output_token,
    memory_by_kind,
    memory_of_replica,
    meter_watts,
    model_bits_per_weight,
    model_facts,
    model_size,
    model_values,
    output_tokens_per_second,
    quantile,
    refused_ratio,
    requests_per_second,
    variant_values,
    watts_by_account,
)
from grafana.queries.query import ALL_VALUE, ENGINE_STATES, RATE_WINDOW, WHOLE_RANGE, Query

__all__ = [
    "ALL_VALUE",
    "ENGINE_STATES",
    "RATE_WINDOW",
    "WHOLE_RANGE",
    "Query",
    "adapter_values",
    "engine_facts",
    "engine_state_code",
    "engine_values",
    "error_ratio",
    "joules_per_output_token",
    "memory_by_kind",
    "memory_of_replica",
    "meter_watts",
    "model_bits_per_weight",
    "model_facts",
    "model_size",
    "model_values",
    "output_tokens_per_second",
    "quantile",
    "refused_ratio",
    "requests_per_second",
    "variant_values",
    "watts_by_account",
]
