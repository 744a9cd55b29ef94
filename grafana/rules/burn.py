"""Burn rates over several windows: how fast a budget is used up, in the long and in the short run.

An alert needs both windows of a pair above the same factor: the long one says that it matters, the short one that it
still goes on. Factors and windows are those of Google's SRE workbook, chapter 5: 2 % of a 30-day budget in an hour,
5 % in six hours, 10 % in a day, 10 % in three days.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

from grafana.queries import rules as promql
from grafana.rules.rule import Alert, Recording

__all__ = ["WINDOWS", "Budget", "burn_alerts", "recordings"]

_PAIRS: Final = (
    ("1h", "5m", 14.4, "2m", "page"),
    ("6h", "30m", 6.0, "15m", "page"),
    ("1d", "2h", 3.0, "1h", "ticket"),
    ("3d", "6h", 1.0, "3h", "ticket"),
)
WINDOWS: Final = tuple(dict.fromkeys(window for long, short, *_ in _PAIRS for window in (short, long)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Something of which there may be so much and no more."""

    alert: str
    """The alerts' common name."""
    series: str
    """What is recorded, without its window."""
    expr: Callable[[str], str]
    """What is recorded, over a window."""
    allowed: str
    """PromQL of the bound that a factor of 1 stands for."""
    summary: str
    advice: str


def recordings(budget: Budget) -> Iterator[Recording]:
    """One a window."""
    for window in WINDOWS:
        yield Recording(record=f"{budget.series}_rate{window}", expr=budget.expr(window))


def burn_alerts(budget: Budget) -> Iterator[Alert]:
    """One a pair of windows; all have one name, so that the louder ones silence nothing but themselves."""
    for long, short, factor, lasts, severity in _PAIRS:
        over = (promql.above(f"{budget.series}_rate{window}", factor, budget.allowed) for window in (long, short))
        yield Alert(
            name=budget.alert,
            expr=promql.both(*over),
            lasts=lasts,
            severity=_severity(severity),
            summary=f"{budget.summary}: at {factor:g} times what is allowed, over {long} and {short}",
            advice=budget.advice,
            labels={"window": long},
        )


def _severity(text: str) -> Literal["page", "ticket"]:
    return "page" if text == "page" else "ticket"
