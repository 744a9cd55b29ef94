"""A query, and what all of them are made of.

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
    "BY_CONFIGURATION",
    "ENGINE",
    "ENGINE_STATES",
    "FAILED",
    "RATE_WINDOW",
    "TRAFFIC",
    "WHOLE_RANGE",
    "Query",
    "by_label",
    "legend",
    "max_by",
    "of_configuration",
    "output_tokens",
    "rate",
    "sum_by",
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

ENGINE: Final = 'model=~"$model",variant=~"$variant",engine=~"$engine"'
TRAFFIC: Final = f'{ENGINE},variant!="none",adapter=~"$adapter"'
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


def rate(metric: str, more: str = "", *, window: str) -> str:
    """The rate of a traffic counter, of everything that is selected; `more` are further matchers."""
    labels = f"{TRAFFIC},{more}" if more else TRAFFIC
    return f"rate({metric}{{{labels}}}[{window}])"


def sum_by(by: Sequence[str], expr: str) -> str:
    """Added up, but for these labels."""
    return f"sum by ({', '.join(by)}) ({expr})"


def output_tokens(by: Sequence[str], window: str) -> str:
    """Output tokens a second."""
    return sum_by(by, rate("wattgate_tokens_total", 'kind="output"', window=window))


def max_by(by: Sequence[str], expr: str) -> str:
    """Replicas of a variant are interchangeable; where they differ after all, the largest counts."""
    return f"max by ({', '.join(by)}) ({expr})"


def of_configuration(expr: str) -> Query:
    """A query with one series a configuration."""
    return Query(expr=expr, legend=legend(BY_CONFIGURATION))


def legend(by: Sequence[str]) -> str:
    """`model` and `variant` as clients write them (`demo:int4`), the other labels behind."""
    configuration = "{{model}}:{{variant}}"
    return " ".join((configuration, *(f"{{{{{label}}}}}" for label in by if label not in BY_CONFIGURATION)))


def by_label(expr: str, *labels: str) -> Query:
    """A query whose series are named by these labels."""
    return Query(expr=expr, legend=" ".join(f"{{{{{label}}}}}" for label in labels))
