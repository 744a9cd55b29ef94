"""PromQL of the recording rules and alerts.

What is recorded is told by `job`, model and variant, so that gateways of one job add up. The windows of a burn rate and
the bounds come from `grafana/rules/`; the objectives are series of their own (`deploy/prometheus/objectives.yml`), so
that whoever runs the rules sets them without generating anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from grafana.queries.query import FAILED

__all__ = [
    "AVAILABILITY_OBJECTIVE",
    "ENERGY_OBJECTIVE",
    "LATENCY_OBJECTIVE",
    "above",
    "any_of",
    "below",
    "both",
    "down",
    "failed_share",
    "fires",
    "grows",
    "joules_per_good_request",
    "late",
    "never_zero",
    "not_serving",
    "rise",
    "slow_share",
    "unreachable",
]

AVAILABILITY_OBJECTIVE: Final = "wattgate:objective:availability_ratio"
LATENCY_OBJECTIVE: Final = "wattgate:objective:ttft_ratio"
ENERGY_OBJECTIVE: Final = "wattgate:objective:joules_per_good_request"

_BY: Final = "sum by (job, model, variant)"
_ENDED: Final = 'variant!="none",outcome!~"client_error|cancelled"'
_REPLICA: Final = "job, instance, model, variant"
_SERVING: Final = "ready|suspect|half_open"


def failed_share(window: str) -> str:
    """Of requests that reached a configuration and were the service's to answer: 0 where none failed."""
    ended = f"{_BY} (rate(wattgate_requests_total{{{_ENDED}}}[{window}]))"
    failed = f'{_BY} (rate(wattgate_requests_total{{variant!="none",outcome=~"{FAILED}"}}[{window}]))'
    return f"({failed} or 0 * {ended}) / ({ended} > 0)"


def slow_share(window: str, bound: float) -> str:
    """Of streams: whose first token came later than `bound` seconds, which must be a bucket's bound."""
    family = "wattgate_time_to_first_token_seconds"
    in_time = f'{_BY} (rate({family}_bucket{{le="{bound}"}}[{window}]))'
    return f"1 - {in_time} / ({_BY} (rate({family}_count[{window}])) > 0)"


def joules_per_good_request(window: str) -> str:
    """All joules of a configuration, idle included, over its requests that were answered."""
    energy = f'{_BY} (rate(wattgate_energy_joules_total{{variant!="none"}}[{window}]))'
    good = f'{_BY} (rate(wattgate_requests_total{{outcome="ok"}}[{window}]))'
    return f"{energy} / ({good} > 0)"


def above(series: str, factor: float, bound: str) -> str:
    """Each element of `series` above `factor` times the only element of `bound`; nothing while there is no bound."""
    return f"{series} > on () group_left () {factor:g} * {bound}"


def both(one: str, other: str) -> str:
    """What is in both."""
    return f"({one}) and ({other})"


def not_serving() -> str:
    """Configurations without a replica that takes requests."""
    return f'sum by ({_REPLICA}) (wattgate_engine_state{{state=~"{_SERVING}"}}) == 0'


def down() -> str:
    """Engines that are broken, by their state."""
    states = 'state=~"unhealthy|backoff|failed"'
    return f"max by (job, instance, engine, state) (wattgate_engine_state{{{states}}}) == 1"


def grows(gauge: str, window: str) -> str:
    """It was never 0 and has a rising trend over `window`."""
    return f"min_over_time({gauge}[{window}]) > 0 and deriv({gauge}[{window}]) > 0"


def rise(counters: Sequence[str], window: str) -> str:
    """One of them counted something within `window`."""
    return " or ".join(f"increase({counter}[{window}]) > 0" for counter in counters)


def never_zero(gauge: str) -> str:
    """It should always be 1, and is 0."""
    return f"{gauge} == 0"


def below(gauge: str, bound: float) -> str:
    """It is less than `bound`."""
    return f"{gauge} < {bound:g}"


def any_of(gauge: str) -> str:
    """There should be none, and there are some."""
    return f"{gauge} > 0"


def unreachable() -> str:
    """Control planes that Prometheus cannot read."""
    return 'up{job="wattgate"} == 0'


def late(q: float, window: str, bound: float) -> str:
    """Processes whose event loop is late by more than `bound` seconds, at the q-quantile."""
    by = "sum by (job, instance, process, le)"
    rate = f"rate(wattgate_event_loop_lag_seconds_bucket[{window}])"
    return f"histogram_quantile({q}, {by} ({rate})) > {bound:g}"


def fires(expr: str) -> str:
    """1 for everything that the expression of an alert finds, whatever its value is."""
    return f"({expr}) * 0 + 1"
