"""The admin API's part for the ledger, and what it shows."""

from __future__ import annotations

import contextlib
import csv
import io
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from fastapi import FastAPI
from fastapi.responses import JSONResponse
from starlette.requests import Request

from server.accounts import Account, Phase, RecordKey
from server.control.admin_ledger import add_ledger
from server.errors import BadRequestError, RequestError
from server.ledger.csv_lines import csv_lines
from server.ledger.period import iso, parse_period
from tests.fakes.batches import record, worker
from tests.fakes.clock import FakeClock
from tests.ledger.plane import RATES, Plane, energy_of, posting, running

pytestmark = pytest.mark.anyio

ALICE = worker("boot-a")
NOW = 1_800_003_600.0  # 2027-01-15T09:00:00Z


class Api:
    """The endpoints over a real ledger."""

    def __init__(self, plane: Plane, client: httpx.AsyncClient) -> None:
        self.plane = plane
        self.client = client

    async def get(self, path: str, status: int = 200) -> Any:
        answer = await self.client.get(path)
        assert answer.status_code == status, answer.text
        return answer.json() if answer.headers["content-type"].startswith("application/json") else answer.text


@contextlib.asynccontextmanager
async def api_over(plane: Plane, *, ledger: bool = True) -> AsyncIterator[Api]:
    app = FastAPI()
    app.add_exception_handler(RequestError, _refuse)
    add_ledger(app, plane.ledger if ledger else None, clock=plane.clock, live=lambda: {"live": True})
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://control") as client:
        yield Api(plane, client)


async def _refuse(_request: Request, exc: Exception) -> JSONResponse:
    assert isinstance(exc, RequestError)
    return JSONResponse(exc.body(), status_code=exc.status)


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with running(tmp_path, clock=FakeClock(monotonic=1000.0, wall=NOW)) as plane, api_over(plane) as api:
        yield api


async def test_request_is_final_once_its_energy_is_known(api: Api) -> None:
    api.plane.take(ALICE, 1, [record(id="r1")])
    await api.plane.written()
    found = await api.get("/api/requests/r1")
    assert (found["id"], found["tenant"], found["final"], found["energy"]) == ("r1", "alice", False, None)
    assert found["ended"] == iso(NOW + 0.5)
    api.plane.post([energy_of(RecordKey("boot-a", 1, 0), 1_000_000, 2_000_000)], {}, RATES)
    await api.plane.written()
    found = await api.get("/api/requests/r1")
    assert found["final"] is True
    energy = found["energy"]
    assert (energy["joules"], energy["prefill_joules"], energy["decode_joules"]) == (3.0, 1.0, 2.0)
    assert (energy["microjoules"], energy["method"], energy["scope"]) == (3_000_000, "phase_time", "gpu")
    assert (energy["co2e_grams"], energy["currency"]) == (pytest.approx(3e-4), "EUR")


@pytest.mark.parametrize("odd", ["a/b", "a b?c=d&e#f", "ü%41", "x.csv", "'; DROP TABLE records"])
async def test_request_is_found_whatever_its_id(api: Api, odd: str) -> None:
    api.plane.take(ALICE, 1, [record(id=odd)])
    await api.plane.written()
    assert (await api.get(f"/api/requests/{quote(odd, safe='')}"))["id"] == odd


async def test_id_that_was_used_again_gives_the_newest_and_the_others(api: Api) -> None:
    api.plane.take(ALICE, 1, [record(status=500, ended_at=1001.0), record(status=200, ended_at=1002.0)])
    await api.plane.written()
    found = await api.get("/api/requests/r1")
    assert found["status"] == 200
    assert [other["status"] for other in found["others"]] == [500]


async def test_unknown_request_is_a_404_that_says_when_to_look_again(api: Api) -> None:
    await api.plane.until(lambda: api.plane.ledger.state().up)
    refused = await api.get("/api/requests/nobody", status=404)
    assert "'nobody'" in refused["error"]["message"]
    assert "retention_days" in refused["error"]["message"]


async def test_energy_by_labels_adds_up_and_says_which_hours_it_covers(api: Api) -> None:
    assert await api.get("/api/energy") == {"live": True}
    api.plane.take(ALICE, 1, [record(tenant="acme"), record(tenant="zeta", output_tokens=None)])
    api.plane.post(
        [],
        {
            posting(tenant="acme", phase=Phase.PREFILL): 1_000_000,
            posting(tenant="acme"): 4_000_000,
            posting(tenant="none", account=Account.IDLE, phase=Phase.NONE, scope="package"): 7_000_000,
        },
        RATES,
    )
    await api.plane.written()
    found = await api.get("/api/energy?by=tenant&from=2027-01-15T09:20:00Z&to=2027-01-15T10:40:00%2B01:00")
    assert (found["from"], found["to"]) == ("2027-01-15T09:00:00+00:00", "2027-01-15T10:00:00+00:00")
    rows = {row["tenant"]: row for row in found["rows"]}
    assert rows["acme"]["joules"] == {
        "active": 5.0,
        "prefill": 1.0,
        "decode": 4.0,
        "idle": None,
        "unattributed": None,
        "other": None,
    }
    assert rows["acme"]["joules_per_output_token"] == 1.0
    assert rows["acme"]["costs"] == {"EUR": pytest.approx(1e-7)}
    assert rows["acme"]["co2e_coverage"] == 1.0
    assert rows["zeta"]["joules"]["active"] is None
    assert rows["zeta"]["output_tokens"] is None
    assert rows["none"]["scopes"] == ["package"]
    assert found["total"]["microjoules"]["active"] + found["total"]["microjoules"]["idle"] == 12_000_000
    assert found["total"]["requests"] == 2
    assert (await api.get("/api/energy?by=tenant&from=2027-01-15T10:00:00&to=2027-01-15T11:00:00"))["rows"] == []


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("by=tenant&from=yesterday", "2026-03-01"),
        ("by=tenant&to=2026-13-01", "`to` is no time"),
        ("by=tenant&from=nan", "`from` is no time"),
        ("by=tenant&from=99999999999999", "`from` is no time"),
        ("by=tenant&from=2026-03-02&to=2026-03-01", "must be before"),
        ("by=colour", "'colour'"),
        ("by=", "tenant, adapter"),
        ("from=2026-03-01", "by=tenant"),
    ],
)
@pytest.mark.parametrize("path", ["/api/energy", "/api/energy.csv"])
async def test_bad_question_is_a_400_that_shows_a_good_one(api: Api, path: str, query: str, says: str) -> None:
    refused = await api.get(f"{path}?{query}", status=400)
    assert says in refused["error"]["message"]


async def test_csv_of_requests_has_every_column_and_no_formula(api: Api) -> None:
    evil = ["=HYPERLINK(1)", "+1", "-1", "@x", 'plain, with "quotes"\nand lines']
    api.plane.take(
        ALICE, 1, [record(id=name, requested_model=name, ended_at=1001.0 + n) for n, name in enumerate(evil)]
    )
    api.plane.post([energy_of(RecordKey("boot-a", 1, 0), 1_500_000, 500_000)], {}, RATES)
    await api.plane.written()
    text = await api.get("/api/requests.csv?from=2027-01-15&to=2027-01-16")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["id"] for row in rows] == ["'=HYPERLINK(1)", "'+1", "'-1", "'@x", evil[4]]
    assert (rows[0]["joules"], rows[0]["prefill_joules"], rows[0]["streamed"]) == ("2.0", "1.5", "true")
    assert (rows[1]["joules"], rows[1]["whole"]) == ("", "")
    assert rows[0]["ended"] == iso(NOW + 1.0)
    refused = await api.get("/api/requests.csv?from=2027-01-16&to=x", status=400)
    assert "`to` is no time" in refused["error"]["message"]


async def test_csv_of_energy_has_a_line_a_group(api: Api) -> None:
    api.plane.take(ALICE, 1, [record(tenant="=1+1")])
    api.plane.post([], {posting(tenant="=1+1"): 2_000_000}, RATES)
    await api.plane.written()
    answer = await api.client.get("/api/energy.csv?by=tenant,engine&from=2027-01-15&to=2027-01-16")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    (row,) = csv.DictReader(io.StringIO(answer.text))
    assert (row["tenant"], row["engine"], row["requests"]) == ("'=1+1", "demo-int4", "1")
    assert (row["active_joules"], row["idle_joules"], row["scopes"]) == ("2.0", "", "gpu")
    assert float(row["cost_EUR"]) == pytest.approx(4e-8)


async def test_ledger_that_cannot_be_read_is_a_503(tmp_path: Path) -> None:
    plane = Plane(tmp_path / "nowhere", None, FakeClock())
    async with api_over(plane) as api:
        for path in ("/api/requests/x", "/api/energy?by=tenant", "/api/energy.csv?by=tenant", "/api/requests.csv"):
            assert "cannot be read" in (await api.get(path, status=503))["error"]["message"]


async def test_without_a_ledger_its_paths_say_so(tmp_path: Path) -> None:
    async with api_over(Plane(tmp_path, None, FakeClock()), ledger=False) as api:
        assert await api.get("/api/energy") == {"live": True}
        for path in ("/api/requests/x", "/api/energy?by=tenant", "/api/requests.csv"):
            assert "ledger.enabled" in (await api.get(path, status=404))["error"]["message"]


def test_csv_leaves_in_pieces_and_whole() -> None:
    def rows() -> Iterator[dict[str, int]]:
        yield from ({"n": number} for number in range(1200))

    pieces = list(csv_lines(["n"], rows()))
    assert len(pieces) == 3
    assert "".join(pieces).split("\r\n")[1:-1] == [str(number) for number in range(1200)]


def test_times_are_dates_times_or_seconds() -> None:
    for text in ("2026-03-01", "2026-03-01T00:00:00Z", "2026-03-01T01:00:00+01:00", "2026-03-01T01:00:00 01:00"):
        assert parse_period(text, None, now=2e9).start == 1772323200.0
    assert parse_period("1772323200.5", None, now=2e9).start == 1772323200.5
    assert parse_period(None, "2026-03-31", now=2e9).start == 1772323200.0
    with pytest.raises(BadRequestError):
        parse_period("", None, now=2e9)
