"""Load runs as annotations: the control plane says when they were, Grafana draws them on every dashboard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import httpx
from grafana_client import GrafanaApi

from grafana.push.errors import PushError
from grafana.push.target import Target, answered

__all__ = ["annotate", "read_runs", "unknown_runs"]

_TAGS: Final = ("wattgate", "load")
_TIMEOUT_S: Final = 10.0
_MOST: Final = 1000


def read_runs(control: str, token: str | None) -> Sequence[Mapping[str, Any]]:
    """The runs that have ended, as `GET /api/runs` tells them. Raises `PushError`."""
    headers = {"authorization": f"Bearer {token}"} if token else {}
    try:
        answer = httpx.get(f"{control.rstrip('/')}/api/runs", headers=headers, timeout=_TIMEOUT_S)
        answer.raise_for_status()
        runs = answer.json()["runs"]
        return [run for run in runs if run.get("started") and run.get("ended")]
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError, AttributeError) as exc:
        raise PushError(f"The control plane at {control} does not tell its load runs ({exc}).") from exc


def unknown_runs(api: GrafanaApi, target: Target, runs: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """Those that Grafana has no annotation of. Raises `PushError`."""
    there = answered(target, lambda: api.annotations.find_annotations(tags=_TAGS, limit=_MOST))
    texts = [str(one.get("text")) for one in there or ()]
    return [run for run in runs if not any(_mark(run) in text for text in texts)]


def annotate(api: GrafanaApi, target: Target, run: Mapping[str, Any]) -> None:
    """Add one. Raises `PushError`."""
    answered(
        target,
        lambda: api.annotations.add_annotation(
            time_from=_milliseconds(run["started"]),
            time_to=_milliseconds(run["ended"]),
            tags=list(_TAGS),
            text=_text(run),
        ),
    )


def _text(run: Mapping[str, Any]) -> str:
    parts = [str(run.get(name)) for name in ("name", "workload") if run.get(name)]
    return f"{' '.join(parts) or 'load'} {_mark(run)}"


def _mark(run: Mapping[str, Any]) -> str:
    """Numbers begin anew with a new state folder: the start tells two runs of one number apart."""
    return f"[{run['id']} of {run['started']}]"


def _milliseconds(moment: str | float) -> int:
    """Of a time in ISO 8601, or in seconds since 1970."""
    seconds = datetime.fromisoformat(moment).timestamp() if isinstance(moment, str) else moment
    return round(1000 * seconds)
