"""PromQL of the panels.

A query is built from what it means (`joules_per_output_token(...)`), so that a metric or a label changes in one place.
Rules: J/token is a ratio of sums, never a mean of ratios; a zero denominator makes the result absent; facts that stand
only on `wattgate_engine_info` are joined from it; what belongs to no configuration (requests refused before they were
routed have the variant `none`) stays out of every comparison.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

__all__ = [
    "ALL_VALUE",
    "ENGINE_STATES",
    "FAILED",
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

ALL_VALUE: Final = ".+"
"""What a variable stands for while everything is selected."""

RATE_WINDOW: Final = "$__rate_interval"
WHOLE_RANGE: Final = "$__range"
"""The time range that the dashboard shows."""

BY_CONFIGURATION: Final = ("model", "variant")

ENGINE_STATES: Final = (
    "pending",
    "starting",
    "ready",
    "suspect",
    "unhealthy",
    "half_open",
    "draining",
    "backoff",
    "failed",
    "stopped",
)
"""The label values of `wattgate_engine_state{state}`; a state's code is its place here, counted from 1."""

FAILED: Final = "rejected|upstream_error|upstream_timeout|truncated|internal_error"
"""Outcomes that are the service's fault; a client's mistake or a client that left is none."""

_ENGINE: Final = 'model=~"$model",variant=~"$variant",engine=~"$engine"'
_TRAFFIC: Final = f'{_ENGINE},variant!="none",adapter=~"$adapter"'
_METRIC: Final = re.compile(r"\bwattgate_[a-z0-9_]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A PromQL expression and how its series are named, e.g. `{{model}}:{{variant}}`."""

    expr: str
    legend: str

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics that the expression reads, in order; a histogram by its family's name."""
        names = (name.removesuffix("_bucket") for name in _METRIC.findall(self.expr))
        return tuple(dict.fromkeys(names))


def quantile(histogram: str, q: float, *, window: str = RATE_WINDOW) -> Query:
    """The q-quantile of a latency histogram, a configuration; seconds."""
    return Query(
        expr=f"histogram_quantile({q}, {_sum(('le', *BY_CONFIGURATION), _rate(f'{histogram}_bucket', window=window))})",
        legend=f"{_legend(BY_CONFIGURATION)} p{q * 100:g}",
    )


def output_tokens_per_second(*, window: str = RATE_WINDOW) -> Query:
    """Output tokens per second of wall clock, all streams of a configuration together."""
    return _by_configuration(_output_tokens(BY_CONFIGURATION, window))


def requests_per_second(*, window: str = RATE_WINDOW) -> Query:
    """Ended requests per second, whatever their outcome."""
    return _by_configuration(_sum(BY_CONFIGURATION, _rate("wattgate_requests_total", window=window)))


def error_ratio(*, window: str = RATE_WINDOW) -> Query:
    """The share of requests that the service failed; 0 where there were requests and none failed."""
    ended = _sum(BY_CONFIGURATION, _rate("wattgate_requests_total", window=window))
    failed = _sum(BY_CONFIGURATION, _rate("wattgate_requests_total", f'outcome=~"{FAILED}"', window=window))
    return _by_configuration(f"({failed} or 0 * {ended}) / ({ended} > 0)")


def refused_ratio() -> Query:
    """The share of all requests that were refused before they were routed; nothing filters it."""
    refused = f'sum(rate(wattgate_requests_total{{variant="none",outcome=~"{FAILED}"}}[{RATE_WINDOW}]))'
    ended = f"sum(rate(wattgate_requests_total[{RATE_WINDOW}]))"
    return Query(expr=f"({refused} or vector(0)) / ({ended} > 0)", legend="refused before routing")


def joules_per_output_token(*, by: Sequence[str] = BY_CONFIGURATION, window: str = RATE_WINDOW) -> Query:
    """Joules of the active account over output tokens."""
    energy = _sum(by, _rate("wattgate_energy_joules_total", 'account="active"', window=window))
    return Query(expr=f"{energy} / ({_output_tokens(by, window)} > 0)", legend=_legend(by))


def watts_by_account() -> Query:
    """Attributed power by account, of everything: the variables do not filter it, or it would not reach the meter."""
    return Query(expr=f"sum by (account) (rate(wattgate_energy_joules_total[{RATE_WINDOW}]))", legend="{{account}}")


def meter_watts() -> Query:
    """What the meters themselves read, all devices together."""
    return Query(expr=f"sum(rate(wattgate_device_energy_joules_total[{RATE_WINDOW}]))", legend="meter")


def memory_by_kind() -> Query:
    """Memory of a configuration by kind, its replicas added up; bytes. The kinds overlap."""
    by = (*BY_CONFIGURATION, "kind")
    kinds = 'kind=~"weights|kv|resident|device_used"'
    return Query(expr=_sum(by, f"wattgate_memory_bytes{{{_ENGINE},{kinds}}}"), legend=_legend(by))


def memory_of_replica() -> Query:
    """Memory that the largest replica of a configuration holds: the GPU's, else its processes'; bytes."""
    on_gpu = f'wattgate_memory_bytes{{{_ENGINE},kind="device_used"}}'
    in_host = f'wattgate_memory_bytes{{{_ENGINE},kind="resident"}}'
    return _by_configuration(_max(BY_CONFIGURATION, f"{on_gpu} or on (job, instance, engine) {in_host}"))


def model_facts() -> Query:
    """Weights of the model, with the precision and the quantization method as labels."""
    joined = f"on (job, instance, engine) group_left (quantization) wattgate_engine_info{{{_ENGINE}}}"
    by = (*BY_CONFIGURATION, "precision", "quantization")
    return _by_configuration(_max(by, f"wattgate_model_parameters{{{_ENGINE}}} * {joined}"))


def model_size() -> Query:
    """Weight files of the variant; bytes."""
    return _by_configuration(_max(BY_CONFIGURATION, f"wattgate_model_size_bytes{{{_ENGINE}}}"))


def model_bits_per_weight() -> Query:
    """Bits a weight, over the whole file."""
    return _by_configuration(f"8 * {_max(BY_CONFIGURATION, f'wattgate_model_bytes_per_weight{{{_ENGINE}}}')}")


def engine_facts() -> Query:
    """One series an engine, its facts as labels."""
    return Query(expr=f"wattgate_engine_info{{{_ENGINE}}}", legend="{{engine}}")


def engine_state_code() -> Query:
    """The code (see `ENGINE_STATES`) of the state that each engine is in."""
    coded = " or ".join(
        f'wattgate_engine_state{{{_ENGINE},state="{state}"}} * {code}'
        for code, state in enumerate(ENGINE_STATES, start=1)
    )
    return Query(expr=f"sum by (engine) ({coded})", legend="{{engine}}")


def model_values() -> str:
    """The choices of the variable `model`."""
    return "label_values(wattgate_engine_info, model)"


def variant_values() -> str:
    """The choices of the variable `variant`: those of the selected models."""
    return 'label_values(wattgate_engine_info{model=~"$model"}, variant)'


def engine_values() -> str:
    """The choices of the variable `engine`: those of the selected variants."""
    return 'label_values(wattgate_engine_info{model=~"$model",variant=~"$variant"}, engine)'


def adapter_values() -> str:
    """The choices of the variable `adapter`: those that had traffic; `none` is the base model alone."""
    return 'label_values(wattgate_requests_total{model=~"$model",variant=~"$variant"}, adapter)'


def _rate(metric: str, more: str = "", *, window: str) -> str:
    labels = f"{_TRAFFIC},{more}" if more else _TRAFFIC
    return f"rate({metric}{{{labels}}}[{window}])"


def _sum(by: Sequence[str], expr: str) -> str:
    return f"sum by ({', '.join(by)}) ({expr})"


def _output_tokens(by: Sequence[str], window: str) -> str:
    return _sum(by, _rate("wattgate_tokens_total", 'kind="output"', window=window))


def _max(by: Sequence[str], expr: str) -> str:
    """Replicas of a variant are interchangeable; where they differ after all, the largest counts."""
    return f"max by ({', '.join(by)}) ({expr})"


def _by_configuration(expr: str) -> Query:
    return Query(expr=expr, legend=_legend(BY_CONFIGURATION))


def _legend(by: Sequence[str]) -> str:
    """`model` and `variant` as clients write them (`demo:int4`), the other labels behind."""
    configuration = "{{model}}:{{variant}}"
    return " ".join((configuration, *(f"{{{{{label}}}}}" for label in by if label not in BY_CONFIGURATION)))
