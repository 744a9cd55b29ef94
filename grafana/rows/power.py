"""Where all the joules go: configurations, engines, adapters, tenants, and what nobody used."""

from __future__ import annotations

from typing import Final

from grafana import queries
from grafana.panels import Lines, Matrix, Panel, Stat
from grafana.queries import energy
from grafana.rows.row import Row

__all__ = ["ATTRIBUTION", "POWER"]

_NO_METER: Final = "no meter reads any device; unknown energy is never drawn as zero."

POWER: Final = Row(
    title="Power",
    panels=(
        Panel(
            title="Power by account, and the meter",
            shows=(
                "Attributed power as a stack, the meters' own reading as the dashed line. Always of everything: the "
                "variables do not filter it."
            ),
            no_data=_NO_METER,
            unit="watt",
            drawing=Lines(stacked=True, overlay=queries.meter_watts().legend),
            queries=(queries.watts_by_account(), queries.meter_watts()),
            width=12,
        ),
        Panel(
            title="Power by configuration",
            shows="Active power, and idle power that an engine that is up takes while nobody uses it.",
            no_data=_NO_METER,
            unit="watt",
            drawing=Lines(stacked=True),
            queries=(energy.watts_by_configuration(),),
            width=12,
        ),
        Panel(
            title="Joules a token, engine by adapter",
            shows=(
                "Joules of the active account over output tokens, over the whole time range. The adapter `none` is the "
                "base model alone."
            ),
            no_data=_NO_METER,
            unit="si:J/token",
            drawing=Matrix(rows="engine", columns="adapter"),
            queries=(energy.joules_by_engine_and_adapter(),),
            width=12,
        ),
        Panel(
            title="Power by tenant",
            shows="The active account, by tenant.",
            no_data=_NO_METER,
            unit="watt",
            drawing=Lines(stacked=True),
            queries=(energy.tenant_watts(),),
            width=12,
        ),
        Panel(
            title="Joules a request",
            shows="Median and p95 of completed requests; known once their windows are closed.",
            no_data="no request was completed and accounted in this window.",
            unit="joule",
            drawing=Lines(),
            queries=(energy.request_joules(0.5), energy.request_joules(0.95)),
        ),
        Panel(
            title="Price of an output token",
            shows="An average cost at the batch sizes of the last minute; what provisional joules are made of.",
            no_data="no token was accounted in the last minute.",
            unit="si:J/token",
            drawing=Lines(),
            queries=(energy.output_token_price(),),
        ),
        Panel(
            title="Price of a prompt token",
            shows="Of one that was computed; those from the prefix cache cost next to nothing.",
            no_data="no prompt was accounted in the last minute.",
            unit="si:J/token",
            drawing=Lines(),
            queries=(energy.prompt_token_price(),),
        ),
    ),
)

ATTRIBUTION: Final = Row(
    title="How far these joules can be trusted",
    panels=(
        Panel(
            title="Confidence",
            shows="How far a single request's joules can be trusted, 0 to 1, by the method in use.",
            no_data="nothing is attributed.",
            unit="percentunit",
            drawing=Lines(maximum=1),
            queries=(energy.attribution_confidence(),),
        ),
        Panel(
            title="Residual",
            shows="By how much the meter was above (or below) what the method expected, before scaling put it right.",
            no_data="no method that expects anything is in use yet.",
            unit="joule",
            drawing=Lines(negative=True),
            queries=(energy.attribution_residual(),),
        ),
        Panel(
            title="Meters",
            shows="1 where the last reading succeeded, 0 where it did not.",
            no_data="no meter was found.",
            unit="short",
            drawing=Lines(maximum=1),
            queries=(energy.meters_up(),),
        ),
        Panel(
            title="Saved by cancellations",
            shows="Joules that cancelled requests did not use, over the time range, at the prices of their moment.",
            no_data="nothing was cancelled, or no price is known.",
            unit="joule",
            drawing=Stat(named=True),
            queries=(energy.saved_by_cancellation(),),
            width=24,
            height=4,
        ),
    ),
)
