"""The admin API's part for announced load runs."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field

from server.clock import Clock
from server.control.runs import Announced, Announcement, Runs
from server.ledger.period import iso
from server.units import Seconds

__all__ = ["AnnounceRun", "add_runs"]

_TEXT = 500


class AnnounceRun(BaseModel):
    """A load run begins now."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, max_length=_TEXT)
    host: str | None = Field(None, max_length=_TEXT, description="The machine that makes the load.")
    target: str | None = Field(None, max_length=_TEXT, description="The URL that it is put on.")
    workload: str | None = Field(None, max_length=_TEXT)
    arrivals: str | None = Field(None, max_length=_TEXT, description="Open loop: the arrival process.")
    rate_per_s: float | None = Field(None, ge=0, le=1e9, description="Open loop: requests a second.")
    concurrency: int | None = Field(None, ge=1, le=10**9, description="Closed loop: requests in flight.")
    seed: int | None = Field(None, ge=0, le=2**63)
    salt: str | None = Field(None, max_length=_TEXT, description="Its requests have the id load-SALT-NUMBER.")
    models: list[str] = Field([], max_length=1000, description="Ids that it asks for.")
    planned_s: float | None = Field(None, gt=0, le=1e9, description="How long it wants to run.")

    def said(self) -> Announcement:
        return Announcement(**{**self.model_dump(), "models": tuple(self.models)})


class EndRun(BaseModel):
    """The run is over."""

    model_config = ConfigDict(extra="forbid")

    id: int
    partial: bool = Field(False, description="It was interrupted.")
    summary: str | None = Field(None, max_length=4096, description="Where its results lie.")


def add_runs(app: FastAPI, runs: Runs, clock: Clock) -> None:
    """Add what announces, ends and lists load runs."""

    @app.get("/api/runs", summary="Load runs that were announced, the newest first")
    async def listed() -> dict[str, Any]:
        return {"runs": [_view(run, clock.wall()) for run in runs.listed()]}

    @app.post("/api/runs", status_code=201, summary="Announce a load run that begins now")
    async def announce(body: AnnounceRun) -> dict[str, Any]:
        return _view(runs.announce(body.said()), clock.wall())

    @app.post("/api/runs/end", summary="Say that an announced run is over, and where its results lie")
    async def end(body: EndRun) -> dict[str, Any]:
        return _view(runs.end(body.id, partial=body.partial, summary=body.summary), clock.wall())


def _view(run: Announced, now: Seconds) -> dict[str, Any]:
    return {
        "id": run.id,
        "state": run.state(now),
        **asdict(run.announcement),
        "started": iso(run.started),
        "ended": None if run.ended is None else iso(run.ended),
        "summary": run.summary,
    }
