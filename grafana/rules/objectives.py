"""What the service promises: shares of good requests, and joules for each of them."""

from __future__ import annotations

from typing import Final

from grafana.queries import rules as promql
from grafana.rules.burn import Budget, burn_alerts, recordings
from grafana.rules.rule import Group

__all__ = ["BUDGETS", "OBJECTIVES", "TTFT_BOUND_S"]

TTFT_BOUND_S: Final = 0.5
"""A first token later than that is slow. It must be a bucket's bound of the histogram."""

_WHICH: Final = "{{ $labels.model }}:{{ $labels.variant }}"

BUDGETS: Final = (
    Budget(
        alert="WattgateErrorBudgetBurn",
        series="wattgate:requests_failed:ratio",
        expr=promql.failed_share,
        allowed=f"(1 - {promql.AVAILABILITY_OBJECTIVE})",
        summary=f"{_WHICH} fails too many requests",
        advice=(
            "The dashboards' row of requests tells outcomes apart: rejected means too little room, upstream_error and "
            "truncated an engine that fails; its log lies in `state_dir`/logs."
        ),
    ),
    Budget(
        alert="WattgateLatencyBudgetBurn",
        series="wattgate:ttft_slow:ratio",
        expr=lambda window: promql.slow_share(window, TTFT_BOUND_S),
        allowed=f"(1 - {promql.LATENCY_OBJECTIVE})",
        summary=f"{_WHICH} is slow to its first token, {TTFT_BOUND_S:g} s",
        advice=(
            "Compare queue time and the engine's waiting requests: with a queue there is too little capacity, without "
            "one the prompts have become longer or the engine slower."
        ),
    ),
    Budget(
        alert="WattgateEnergyBudgetBurn",
        series="wattgate:joules_per_good_request:ratio",
        expr=promql.joules_per_good_request,
        allowed=promql.ENERGY_OBJECTIVE,
        summary=f"{_WHICH} takes too much energy for each answered request",
        advice=(
            "Idle joules are counted in: with little traffic, serve fewer variants. With errors, their joules are "
            "wasted. Else look at J/token by adapter and at output lengths."
        ),
    ),
)

OBJECTIVES: Final = (
    *(Group(name=f"{budget.series.split(':')[1]}.rules", rules=tuple(recordings(budget))) for budget in BUDGETS),
    Group(name="wattgate.budgets", rules=tuple(alert for budget in BUDGETS for alert in burn_alerts(budget))),
)
