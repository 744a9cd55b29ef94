"""Tells the control plane that a run begins, and that it is over."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from loadgen._control import Control
from loadgen._errors import LoadError
from loadgen._gateway import Prepared
from loadgen._plan import Plan

__all__ = ["Announcement"]

_NAME_CHARS = 500


@dataclass(slots=True, kw_only=True)
class Announcement:
    """One run, as announced. That it could not be announced never ends a run: `problem` says why."""

    name: str
    id: int | None
    """None: it was not announced."""
    problem: LoadError | None = None

    @classmethod
    def begin(cls, api: Control, plan: Plan, prepared: Prepared) -> Self:
        body = _body(plan, prepared)
        try:
            return cls(name=body["name"], id=int(api.post_json("/api/runs", body)["id"]))
        except LoadError as exc:
            return cls(name=body["name"], id=None, problem=exc)
        except (KeyError, TypeError, ValueError) as exc:
            return cls(name=body["name"], id=None, problem=LoadError(f"POST /api/runs gave no id ({exc!r})."))

    def end(self, api: Control, *, partial: bool, summary: Path | None) -> None:
        if self.id is None:
            return
        where = str(summary.absolute()) if summary is not None else None
        try:
            api.post_json("/api/runs/end", {"id": self.id, "partial": partial, "summary": where})
        except LoadError as exc:
            self.problem = exc

    def to_json(self) -> dict[str, Any]:
        return {"id": self.id, "name": self.name, "problem": str(self.problem) if self.problem else None}


def _body(plan: Plan, prepared: Prepared) -> dict[str, Any]:
    pace = f"{plan.rate:g}/s {plan.arrivals}" if plan.open_loop else f"{plan.concurrency} at a time"
    pace = "times of the trace" if plan.open_loop and plan.rate == 0 else pace
    models = list(prepared.mix.models)
    return {
        "name": f"{plan.workload}, {pace}, {', '.join(models)}"[:_NAME_CHARS],
        "host": platform.node() or None,
        "target": plan.host,
        "workload": plan.workload,
        "arrivals": plan.arrivals if plan.open_loop else None,
        "rate_per_s": plan.rate if plan.open_loop and plan.rate > 0 else None,
        "concurrency": None if plan.open_loop else plan.concurrency,
        "seed": plan.seed,
        "salt": plan.salt,
        "models": models,
        "planned_s": plan.run_time_s,
    }
