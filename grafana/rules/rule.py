"""A rule of Prometheus: a series to record, or an alert; and a group of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["Alert", "Group", "Recording"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """A series that is computed once for all who ask."""

    record: str
    """`level:metric:operation`, as Prometheus recommends."""
    expr: str

    def to_yaml(self) -> dict[str, Any]:
        return {"record": self.record, "expr": self.expr}


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """What somebody must know."""

    name: str
    expr: str
    lasts: str
    """For how long `expr` must hold, e.g. `5m`."""
    severity: Literal["page", "ticket"]
    """`page`: now, whatever the hour. `ticket`: within days."""
    summary: str
    """What has happened, with labels as `{{ $labels.model }}`."""
    advice: str
    """Where to look and what to do."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """More than the severity: what tells alerts of one name apart."""

    def to_yaml(self) -> dict[str, Any]:
        return {
            "alert": self.name,
            "expr": self.expr,
            "for": self.lasts,
            "labels": {"severity": self.severity, **self.labels},
            "annotations": {"summary": self.summary, "description": self.advice},
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Rules that are evaluated one after the other."""

    name: str
    rules: Sequence[Recording | Alert]

    def to_yaml(self) -> dict[str, Any]:
        return {"name": self.name, "rules": [rule.to_yaml() for rule in self.rules]}
