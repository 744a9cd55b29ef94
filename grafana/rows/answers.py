"""The answer in one line: who is first in each respect, over the time range shown."""

from __future__ import annotations

from typing import Final

from grafana import queries
from grafana.panels import Panel, Scatter, Stat
from grafana.queries import answers
from grafana.rows.row import Row

__all__ = ["ANSWERS", "TRADE_OFFS"]

_WINDOW: Final = queries.WHOLE_RANGE
_NO_TRAFFIC: Final = "no selected configuration had traffic in this time range."
_NO_METER: Final = "no meter reads the device, or no token came in this time range."


def _first(title: str, shows: str, no_data: str, unit: str, query: queries.Query) -> Panel:
    return Panel(
        title=title,
        shows=f"{shows} Over the whole time range; compare under the same load.",
        no_data=no_data,
        unit=unit,
        drawing=Stat(named=True),
        queries=(query,),
        width=6,
        height=4,
    )


ANSWERS: Final = Row(
    title="The answer",
    panels=(
        _first(
            "Cheapest a token",
            "The configuration with the fewest joules an output token.",
            _NO_METER,
            "si:J/token",
            answers.least(queries.joules_per_output_token(window=_WINDOW)),
        ),
        _first(
            "Steadiest",
            "The configuration with the lowest p95 of the gaps between chunks.",
            _NO_TRAFFIC,
            "s",
            answers.least(queries.quantile("wattgate_inter_token_latency_seconds", 0.95, window=_WINDOW)),
        ),
        _first(
            "Soonest",
            "The configuration with the lowest p95 of the time to the first token.",
            _NO_TRAFFIC,
            "s",
            answers.least(queries.quantile("wattgate_time_to_first_token_seconds", 0.95, window=_WINDOW)),
        ),
        _first(
            "What the cheapest saves",
            "By how much a token of the cheapest configuration takes fewer joules than one of the dearest.",
            _NO_METER,
            "percentunit",
            answers.saving(queries.joules_per_output_token(window=_WINDOW)),
        ),
    ),
)

TRADE_OFFS: Final = Row(
    title="Trade-offs: left and low is better",
    panels=(
        Panel(
            title="Joules a token against p95 inter-token latency",
            shows=(
                "A point a variant, over the whole time range. Who has another point to the left and below of it is "
                "worse in both respects; who has none is on the Pareto front."
            ),
            no_data=_NO_METER,
            unit="short",
            drawing=Scatter(x="J / output token", y="ITL p95", x_unit="si:J", y_unit="s", name="variant"),
            queries=(
                queries.joules_per_output_token(window=_WINDOW),
                queries.quantile("wattgate_inter_token_latency_seconds", 0.95, window=_WINDOW),
            ),
            width=12,
            height=9,
        ),
        Panel(
            title="Joules a token against lost quality",
            shows=(
                "Perplexity over the reference's, less 1, as `wattgate quant evaluate` measured it. A point a variant."
            ),
            no_data="no variant has a measured quality, or no meter reads the device.",
            unit="short",
            drawing=Scatter(
                x="J / output token", y="Perplexity lost", x_unit="si:J", y_unit="percentunit", name="variant"
            ),
            queries=(
                queries.joules_per_output_token(window=_WINDOW),
                answers.lost_quality(),
            ),
            width=12,
            height=9,
        ),
    ),
)
