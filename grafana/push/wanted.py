"""What a Grafana is to have: a folder, a data source, dashboards, alert rules."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from grafana.boards import BOARDS
from grafana.generate import render
from grafana.queries.rules import fires
from grafana.rules import RULES, Alert

__all__ = ["DATA_SOURCE_UID", "FOLDER_UID", "Thing", "wanted"]

FOLDER_UID: Final = "wattgate"
DATA_SOURCE_UID: Final = "wattgate-prometheus"

_FOLDER_TITLE: Final = "Wattgate"
_MAX_UID: Final = 40
_RANGE_S: Final = 600
_PAUSE: Final = "1m"


@dataclass(frozen=True, slots=True, kw_only=True)
class Thing:
    """One object of Grafana's, by its uid."""

    kind: str
    """folder | data source | dashboard | alert rule"""
    uid: str
    title: str
    body: Mapping[str, Any]


def wanted(prometheus: str | None, *, interval: str = "15s", alerts: bool = True) -> list[Thing]:
    """In the order in which they must be made. `prometheus`: its address; None: a data source is there already."""
    things = [Thing(kind="folder", uid=FOLDER_UID, title=_FOLDER_TITLE, body={"title": _FOLDER_TITLE})]
    if prometheus is not None:
        things.append(_data_source(prometheus, interval))
    things += [_dashboard(render(board)) for board in BOARDS.values()]
    # An alert rule names the data source that it asks: without one of our own there is none to name.
    return [*things, *_alert_rules()] if alerts and prometheus is not None else things


def _data_source(url: str, interval: str) -> Thing:
    body = {
        "uid": DATA_SOURCE_UID,
        "name": _FOLDER_TITLE,
        "type": "prometheus",
        "access": "proxy",
        "url": url,
        "jsonData": {"httpMethod": "POST", "timeInterval": interval},
    }
    return Thing(kind="data source", uid=DATA_SOURCE_UID, title=_FOLDER_TITLE, body=body)


def _dashboard(text: str) -> Thing:
    body = json.loads(text)
    return Thing(kind="dashboard", uid=body["uid"], title=body["title"], body=body)


def _alert_rules() -> Iterator[Thing]:
    for groups in RULES.values():
        for group in groups:
            for rule in group.rules:
                if isinstance(rule, Alert):
                    yield _alert_rule(group.name, rule)


def _alert_rule(group: str, alert: Alert) -> Thing:
    name = " ".join([alert.name, *alert.labels.values()])
    uid = _uid(name)
    body = {
        "uid": uid,
        "title": name,
        "ruleGroup": group,
        "folderUID": FOLDER_UID,
        "condition": "B",
        "data": _question(fires(alert.expr)),
        "for": alert.lasts,
        "noDataState": "OK",
        "execErrState": "Error",
        "labels": {"severity": alert.severity, **alert.labels},
        "annotations": {"summary": alert.summary, "description": alert.advice},
    }
    return Thing(kind="alert rule", uid=uid, title=name, body=body)


def _question(expr: str) -> Sequence[Mapping[str, Any]]:
    """Grafana asks and compares in two steps: the expression gives 1 for whatever is wrong, and nothing else."""
    span = {"from": _RANGE_S, "to": 0}
    asked = {"refId": "A", "expr": expr, "instant": True, "range": False, "interval": _PAUSE}
    compared = {
        "refId": "B",
        "type": "threshold",
        "expression": "A",
        "conditions": [{"evaluator": {"type": "gt", "params": [0]}}],
    }
    return [
        {"refId": "A", "relativeTimeRange": span, "datasourceUid": DATA_SOURCE_UID, "model": asked},
        {"refId": "B", "relativeTimeRange": span, "datasourceUid": "__expr__", "model": compared},
    ]


def _uid(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])|\W+", "-", name).lower()[:_MAX_UID]
