"""What a token costs in joules, and where all the watts go."""

from __future__ import annotations

from typing import Final

from grafana import queries
from grafana.panels import Lines, Panel
from grafana.rows.row import Row

__all__ = ["ENERGY"]

_NO_METER: Final = "no meter reads the device, or no token came in this window; unknown energy is never drawn as zero."
_ACTIVE_ONLY: Final = "Joules of the active account over output tokens, a ratio of sums; idle power is not in it."

ENERGY: Final = Row(
    title="Energy",
    panels=(
        Panel(
            title="Energy per output token",
            shows=f"{_ACTIVE_ONLY} Lower is cheaper.",
            no_data=_NO_METER,
            unit="si:J/token",
            drawing=Lines(),
            queries=(queries.joules_per_output_token(),),
        ),
        Panel(
            title="Energy per output token, by adapter",
            shows=f"{_ACTIVE_ONLY} The adapter `none` is the base model alone.",
            no_data=_NO_METER,
            unit="si:J/token",
            drawing=Lines(),
            queries=(queries.joules_per_output_token(by=("model", "variant", "adapter")),),
        ),
        Panel(
            title="Power by account",
            shows=(
                "Attributed power as a stack, the meters' own reading as the dashed line; where the two differ, "
                "readings wait for running requests to end. Always of everything: the variables do not filter it."
            ),
            no_data="no meter reads any device.",
            unit="watt",
            drawing=Lines(stacked=True, overlay=queries.meter_watts().legend),
            queries=(queries.watts_by_account(), queries.meter_watts()),
        ),
    ),
)
