"""What is served now, and what it costs now."""

from __future__ import annotations

from typing import Final

from grafana import queries
from grafana.panels import Panel, Stat
from grafana.queries import energy, engines, gateway
from grafana.rows.row import Row

__all__ = ["NOW"]

_NO_TRAFFIC: Final = "no request ended lately."
_NO_METER: Final = "no meter reads any device; unknown energy is never drawn as zero."


def _stat(title: str, shows: str, no_data: str, unit: str, query: queries.Query, *, named: bool = False) -> Panel:
    return Panel(
        title=title,
        shows=shows,
        no_data=no_data,
        unit=unit,
        drawing=Stat(named=named),
        queries=(query,),
        width=6 if named else 4,
        height=4,
    )


NOW: Final = Row(
    title="Now",
    panels=(
        _stat("Requests", "Requests that end each second.", _NO_TRAFFIC, "reqps", gateway.total_requests()),
        _stat(
            "Output tokens",
            "Tokens that engines report as generated, each second.",
            _NO_TRAFFIC,
            "suffix: tok/s",
            gateway.total_output_tokens(),
        ),
        _stat("In flight", "Requests at engines.", "no engine is known.", "short", gateway.total_in_flight()),
        _stat("Power", "What all meters read.", _NO_METER, "watt", queries.meter_watts()),
        _stat(
            "Emissions",
            "Grams of CO2e an hour, of all accounts, at the intensity of the moment.",
            "no meter, or no carbon intensity is known.",
            "suffix: g/h",
            energy.total_co2e_per_hour(),
        ),
        _stat(
            "Cost",
            "Money an hour, in the configured currency.",
            "no price of energy or of devices is configured, or no meter reads them.",
            "short",
            energy.total_cost_per_hour(),
        ),
        _stat(
            "Replicas that serve",
            "Replicas that take requests, a configuration.",
            "no engine of the selection is known.",
            "short",
            engines.replicas_serving(),
            named=True,
        ),
        _stat(
            "Joules a token",
            "Joules of the active account over output tokens, a configuration.",
            _NO_METER,
            "si:J/token",
            queries.joules_per_output_token(),
            named=True,
        ),
        _stat(
            "First token, p95",
            "Nineteen of twenty streams have their first token earlier, a configuration.",
            "the selected configurations streamed nothing lately.",
            "s",
            queries.quantile("wattgate_time_to_first_token_seconds", 0.95),
            named=True,
        ),
        _stat(
            "Errors",
            "Requests that the service failed, as a share of those that ended, a configuration.",
            _NO_TRAFFIC,
            "percentunit",
            queries.error_ratio(),
            named=True,
        ),
    ),
)
