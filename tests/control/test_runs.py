"""Load runs are announced, ended, listed, counted, and outlive a reload."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from fastapi.responses import JSONResponse
from starlette.requests import Request

from server.config import ControlSettings
from server.control.admin_runs import add_runs
from server.control.doors import Door
from server.control.key_book import KeyBook
from server.control.keys import KeyKind, KeyStore, NewKey, store_path
from server.control.runs import Announcement, Runs, runs_path
from server.errors import RequestError
from server.telemetry import CATALOGUE
from tests.fakes.clock import FakeClock

pytestmark = pytest.mark.anyio

RUN = {"name": "chat at 4/s", "host": "box", "workload": "chat", "rate_per_s": 4.0, "seed": 1, "models": ["demo:int8"]}


def runs_of(folder: Path, clock: FakeClock | None = None) -> Runs:
    return Runs(runs_path(folder), clock or FakeClock())


@asynccontextmanager
async def api(runs: Runs, clock: FakeClock, keys: KeyBook | None = None) -> AsyncIterator[httpx.AsyncClient]:
    app = FastAPI()
    app.add_exception_handler(RequestError, _refuse)
    add_runs(app, runs, clock)
    if keys is not None:
        app.add_middleware(Door, keys=keys, settings=ControlSettings())
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8081") as client:
        yield client


async def _refuse(_request: Request, exc: Exception) -> JSONResponse:
    assert isinstance(exc, RequestError)
    return JSONResponse(exc.body(), status_code=exc.status)


async def test_run_is_listed_from_its_announcement_to_its_end(tmp_path: Path) -> None:
    clock = FakeClock()
    async with api(runs_of(tmp_path, clock), clock) as client:
        announced = await client.post("/api/runs", json=RUN)
        assert announced.status_code == 201
        assert (announced.json()["id"], announced.json()["state"]) == (1, "running")
        clock.advance(30.0)
        ended = await client.post("/api/runs/end", json={"id": 1, "summary": "/runs/a/summary.json"})
        assert (ended.status_code, ended.json()["state"]) == (200, "done")
        [listed] = (await client.get("/api/runs")).json()["runs"]
    assert {name: listed[name] for name in RUN} == RUN
    assert (listed["started"], listed["ended"]) == ("2027-01-15T08:00:00+00:00", "2027-01-15T08:00:30+00:00")
    assert listed["summary"] == "/runs/a/summary.json"
    assert (listed["concurrency"], listed["planned_s"]) == (None, None)


async def test_interrupted_run_is_partial_and_newest_comes_first(tmp_path: Path) -> None:
    clock = FakeClock()
    async with api(runs_of(tmp_path, clock), clock) as client:
        for _ in range(2):
            await client.post("/api/runs", json=RUN)
        await client.post("/api/runs/end", json={"id": 2, "partial": True})
        found = (await client.get("/api/runs")).json()["runs"]
    assert [(run["id"], run["state"]) for run in found] == [(2, "partial"), (1, "running")]


async def test_end_of_a_run_that_nobody_announced_is_refused(tmp_path: Path) -> None:
    clock = FakeClock()
    async with api(runs_of(tmp_path, clock), clock) as client:
        refused = await client.post("/api/runs/end", json={"id": 7})
        assert refused.status_code == 404
        assert "No run 7 was announced" in refused.json()["error"]["message"]
        assert (await client.post("/api/runs", json={"name": ""})).status_code == 422
        assert (await client.post("/api/runs", json={**RUN, "started": "now"})).status_code == 422


async def test_metrics_key_may_not_announce(tmp_path: Path) -> None:
    clock = FakeClock()
    book = KeyBook(KeyStore(store_path(tmp_path), clock), clock, always_closed=(), changed=lambda: None)
    _, admin = await book.create(NewKey(kind=KeyKind.ADMIN))
    _, metrics = await book.create(NewKey(kind=KeyKind.METRICS))
    async with api(runs_of(tmp_path, clock), clock, book) as client:
        for key, status in ((metrics, 401), ("wrong", 401), (admin, 201)):
            answer = await client.post("/api/runs", json=RUN, headers={"authorization": f"Bearer {key}"})
            assert answer.status_code == status


def test_runs_outlive_a_reload_and_only_the_newest_are_kept(tmp_path: Path) -> None:
    runs = runs_of(tmp_path)
    for number in range(130):
        runs.announce(Announcement(name=f"run {number}", models=("a", "b")))
    runs.end(130, summary="there")
    again = runs_of(tmp_path)
    assert again.listed() == runs.listed()
    assert [run.id for run in again.listed()] == list(range(130, 30, -1))
    assert again.announce(Announcement(name="next")).id == 131
    assert (tmp_path / "runs.json").stat().st_mode & 0o077 == 0


def test_broken_file_costs_the_list_and_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs_path(tmp_path).write_text("{", encoding="utf-8")
    runs = runs_of(tmp_path)
    assert runs.listed() == []
    assert "earlier load runs are not listed" in "".join(capsys.readouterr())
    assert runs.announce(Announcement(name="a")).id == 1


def test_second_end_changes_where_the_results_lie_only(tmp_path: Path) -> None:
    clock = FakeClock()
    runs = runs_of(tmp_path, clock)
    first = runs.end(runs.announce(Announcement(name="a")).id)
    clock.advance(5.0)
    second = runs.end(1, summary="there")
    assert (second.ended, second.summary) == (first.ended, "there")


def test_generator_that_went_without_a_word_is_lost(tmp_path: Path) -> None:
    clock = FakeClock()
    run = runs_of(tmp_path, clock).announce(Announcement(name="a", planned_s=60.0))
    clock.advance(600.0)
    assert run.state(clock.wall()) == "running"
    clock.advance(100.0)
    assert run.state(clock.wall()) == "lost"


def test_metrics_count_runs_and_those_that_go_on(tmp_path: Path) -> None:
    clock = FakeClock()
    runs = runs_of(tmp_path, clock)
    for _ in range(3):
        runs.announce(Announcement(name="a", planned_s=60.0))
    runs.end(1)
    assert {name: value for name, _, value in runs.samples()} == {
        "wattgate_load_runs_active": 2.0,
        "wattgate_load_runs_total": 3.0,
    }
    assert {name for name, _, _ in runs.samples()} <= set(CATALOGUE)
    clock.advance(1000.0)
    assert next(value for name, _, value in runs.samples() if name.endswith("active")) == 0.0
