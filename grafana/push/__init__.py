"""Brings dashboards, alert rules and annotations into a running Grafana, as often as one likes.

target.py       where it is, who we are there      wanted.py   what it is to have
stores.py       how each kind is read and written   changes.py  what differs, and putting it right
annotations.py  load runs on the dashboards         errors.py   what can go wrong
"""

from __future__ import annotations

from grafana.push.annotations import annotate, read_runs, unknown_runs
from grafana.push.changes import Change, apply, changes
from grafana.push.errors import PushError
from grafana.push.target import LOWEST_VERSION, Target
from grafana.push.wanted import DATA_SOURCE_UID, Thing, wanted

__all__ = [
    "DATA_SOURCE_UID",
    "LOWEST_VERSION",
    "Change",
    "PushError",
    "Target",
    "Thing",
    "annotate",
    "apply",
    "changes",
    "read_runs",
    "unknown_runs",
    "wanted",
]
