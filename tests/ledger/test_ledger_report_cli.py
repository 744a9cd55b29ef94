"""`wattgate energy report` against the real endpoints on a real socket."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import csv
import io
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import uvicorn
from fastapi import FastAPI
from fastapi.responses import JSONResponse
from starlette.requests import Request

from server.accounts import Account, Phase, Posting
from server.cli import energy_report
from server.control.admin_ledger import add_ledger
from server.errors import RequestError, WattgateError
from tests.fakes.batches import record, worker
from tests.fakes.clock import FakeClock
from tests.ledger.plane import RATES, Plane, posting, running

pytestmark = pytest.mark.anyio

J = 1_000_000
PERIOD = ("--from", "2027-01-15", "--to", "2027-01-16")


class Command:
    """The command, with the address of a control plane."""

    def __init__(self, plane: Plane, url: str, capsys: pytest.CaptureFixture[str]) -> None:
        self.plane = plane
        self._url = url
        self._capsys = capsys

    async def __call__(self, *arguments: str) -> str:
        parser = argparse.ArgumentParser()
        energy_report.add(parser.add_subparsers())
        parsed = parser.parse_args(["report", "--control", self._url, *arguments])
        assert await asyncio.to_thread(parsed.run, parsed) == 0
        return self._capsys.readouterr().out


@pytest.fixture
async def command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> AsyncIterator[Command]:
    async with running(tmp_path, clock=FakeClock(monotonic=1000.0, wall=1_800_003_600.0)) as plane:
        app = FastAPI()
        app.add_exception_handler(RequestError, _refuse)
        add_ledger(app, plane.ledger, clock=plane.clock, live=dict)
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off"))
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            yield Command(plane, f"http://127.0.0.1:{listener.getsockname()[1]}", capsys)
            server.should_exit = True
            with contextlib.suppress(asyncio.CancelledError):
                await serving


async def _refuse(_request: Request, exc: Exception) -> JSONResponse:
    assert isinstance(exc, RequestError)
    return JSONResponse(exc.body(), status_code=exc.status)


async def _fill(plane: Plane, postings: dict[Posting, int]) -> None:
    records = [record(tenant="acme"), record(tenant="acme"), record(tenant="=zeta|", output_tokens=123_456_789)]
    plane.take(worker("boot-a"), 1, records)
    plane.post([], postings, RATES)
    await plane.written()


async def test_table_has_a_line_a_tenant_and_their_sum(command: Command) -> None:
    await _fill(command.plane, {posting(tenant="acme"): 20 * J, posting(tenant="=zeta|"): 3000 * J})
    lines = (await command(*PERIOD)).splitlines()
    assert lines[0] == "2027-01-15T00:00:00+00:00 to 2027-01-16T00:00:00+00:00"
    assert lines[1].split() == ["tenant", "req.", "prompt", "output", "J", "J/tok", "gCO2", "EUR"]
    assert lines[2].split() == ["=zeta|", "1", "10", "123M", "3.00k", "24.3u", "0.300", "60.0u"]
    assert lines[3].split() == ["acme", "2", "20", "10", "20.0", "2.00", "2.00m", "400n"]
    assert lines[4].split() == ["total", "3", "30", "123M", "3.02k", "24.5u", "0.302", "60.4u"]


async def test_table_fits_the_terminal_and_cuts_no_number(command: Command) -> None:
    long = "a-tenant-with-a-name-of-sixty-three-characters-as-long-as-can-be"
    accounts = {
        posting(tenant=long, account=account, phase=Phase.NONE, scope="estimated"): 987_654 * J for account in Account
    }
    await _fill(command.plane, accounts)
    text = await command("--by", "tenant,adapter", *PERIOD)
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    assert "988k" in text
    assert "estimated, not measured" in text


async def test_json_csv_and_markdown_say_the_same(command: Command) -> None:
    await _fill(command.plane, {posting(tenant="acme"): 20 * J, posting(tenant="=zeta|"): 3000 * J})
    rows = json.loads(await command("--json", *PERIOD))["rows"]
    assert [(row["tenant"], row["joules"]["active"]) for row in rows] == [("=zeta|", 3000.0), ("acme", 20.0)]
    lines = list(csv.DictReader(io.StringIO(await command("--csv", *PERIOD))))
    assert [(line["tenant"], line["active_joules"]) for line in lines] == [("'=zeta|", "3000.0"), ("acme", "20.0")]
    markdown = await command("--markdown", *PERIOD)
    assert "| =zeta\\| | 1 | 10 | 123M | 3.00k |" in markdown


async def test_period_without_anything_says_so(command: Command) -> None:
    assert "nothing in this period" in await command("--from", "2020-01-01", "--to", "2020-01-02")


async def test_wrong_time_is_refused_in_words(command: Command) -> None:
    with pytest.raises(WattgateError, match="`from` is no time: 'noon'"):
        await command("--from", "noon")
