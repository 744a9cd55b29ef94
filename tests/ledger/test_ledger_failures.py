"""The ledger that is locked, full, gone, or not for this program: serving goes on, the loss is counted."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.config import LedgerSettings
from server.config.load import parse_config
from server.errors import ConfigError, NoCapacityError
from server.ledger.database import Database
from server.units import Seconds
from tests.fakes.batches import record, used, worker
from tests.fakes.clock import FakeClock
from tests.ledger.plane import RATES, posting, running
from tests.ledger.postgresql import PostgresqlServer

pytestmark = pytest.mark.anyio

ALICE = worker("boot-a")


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Another process writes, and does not end."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


async def test_locked_ledger_is_written_once_it_is_free(tmp_path: Path) -> None:
    async with running(tmp_path) as plane:
        await plane.until(lambda: plane.ledger.state().up)
        with locked(tmp_path / "ledger.sqlite"):
            assert not plane.take(ALICE, 1, [record()])
            plane.post([], {posting(): 5}, RATES)
            await plane.until(lambda: not plane.ledger.state().up)
            assert "locked" in str(plane.ledger.state().problem)
            plane.post([], {posting(): 6}, RATES)
            assert plane.acknowledged == []
        await plane.written()
        assert plane.rows("SELECT sum(energy_uj) FROM energy_hours") == [(11,)]
        await plane.until(lambda: plane.acknowledged == [("boot-a", 1)])
        state = plane.ledger.state()
        assert (state.up, state.rows, state.lost, state.waiting) == (True, 1, 0, 0)


async def test_workers_need_not_hold_for_long_what_cannot_be_written(tmp_path: Path) -> None:
    clock = FakeClock()
    async with running(tmp_path, clock=clock) as plane:
        await plane.until(lambda: plane.ledger.state().up)
        with locked(tmp_path / "ledger.sqlite"):
            assert not plane.take(ALICE, 1, [record()])
            await plane.until(lambda: not plane.ledger.state().up)
            clock.advance(29.0)
            assert not plane.take(ALICE, 2, [record()])
            clock.advance(1.0)
            assert plane.take(ALICE, 3, [record()])
            assert plane.ledger.state().waiting == 3
        await plane.written()
        assert plane.ledger.state().lost == 0
        assert plane.rows("SELECT count(*) FROM records") == [(3,)]


async def test_beyond_the_bound_the_oldest_records_are_lost_and_counted(tmp_path: Path) -> None:
    async with running(tmp_path, max_waiting=1000) as plane:
        await plane.until(lambda: plane.ledger.state().up)
        with locked(tmp_path / "ledger.sqlite"):
            for seq in range(1, 5):
                plane.take(ALICE, seq, [record(id=f"batch-{seq}")] * 400)
            await plane.until(lambda: plane.ledger.state().lost)
            await plane.until(lambda: not plane.ledger.state().up)
            plane.take(ALICE, 5)
            assert plane.ledger.state().waiting <= 1000
        await plane.written()
        state = plane.ledger.state()
        assert state.rows + state.lost == 1600
        assert plane.rows("SELECT sum(requests) FROM usage_hours") == [(state.rows,)]
        assert plane.rows("SELECT count(*) FROM records WHERE id = 'batch-4'") == [(400,)]
        await plane.until(lambda: plane.acknowledged[-1] == ("boot-a", 5))


async def test_ledger_that_is_removed_is_begun_anew(tmp_path: Path) -> None:
    state = tmp_path / "state"
    async with running(state) as plane:
        plane.take(ALICE, 1, [record(id="before")])
        await plane.written()
        shutil.rmtree(state)
        with pytest.raises(NoCapacityError, match="does not exist"):
            plane.ledger.queries.request("before")
        plane.take(ALICE, 2, [record(id="after")])
        plane.post([], {posting(): 5}, RATES)
        await plane.written()
        assert plane.rows("SELECT id FROM records") == [("after",)]
        assert plane.rows("SELECT sum(energy_uj) FROM energy_hours") == [(5,)]
        assert plane.rows("SELECT lifetime FROM lifetimes") == [(plane.ledger.lifetime,)]
        assert (state / "ledger.sqlite").stat().st_mode & 0o777 == 0o600


async def test_full_disk_holds_records_until_there_is_room(tmp_path: Path) -> None:
    async with running(tmp_path) as plane:
        await plane.until(lambda: plane.ledger.state().up)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))  # to SQLite, a write that fails as a full disk does
        try:
            for seq in range(1, 9):
                plane.take(ALICE, seq, [record(id=f"request-{seq}")] * 500)
            await plane.until(lambda: not plane.ledger.state().up)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        await plane.written()
        assert plane.rows("SELECT count(*) FROM records") == [(4000,)]
        assert plane.rows("SELECT sum(requests) FROM usage_hours") == [(4000,)]
        assert plane.ledger.state().up


async def test_file_that_is_no_database_leaves_serving_alone(tmp_path: Path) -> None:
    (tmp_path / "ledger.sqlite").write_bytes(b"this is a letter to a friend, not a database" * 100)
    async with running(tmp_path) as plane:
        plane.take(ALICE, 1, [record()])
        await plane.until(lambda: "not a database" in str(plane.ledger.state().problem))
        (tmp_path / "ledger.sqlite").unlink()
        await plane.written()
        assert plane.rows("SELECT count(*) FROM records") == [(1,)]


async def test_ledger_of_a_newer_program_is_left_alone_and_the_loss_counted(
    tmp_path: Path, url: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path, url) as plane:
        plane.take(ALICE, 1, [record()])
        await plane.written()
        plane.execute("UPDATE alembic_version SET version_num = '9999'")
    async with running(tmp_path, url) as older:
        older.take(ALICE, 2, [record(), record()])
        await older.until(lambda: "newer" in str(older.ledger.state().problem))
        assert older.take(ALICE, 3, [record()])
        older.post([used("r1", 5)], {posting(): 5}, RATES)
        state = older.ledger.state()
        assert (state.up, state.waiting, state.lost) == (False, 0, 3)
        assert {name: value for name, _, value in older.ledger.samples()} == {
            "wattgate_ledger_up": 0.0,
            "wattgate_ledger_rows_total": 0.0,
            "wattgate_ledger_waiting": 0.0,
            "wattgate_ledger_lost_total": 3.0,
            "wattgate_ledger_energies_lost_total": 1.0,
        }
        assert older.rows("SELECT count(*) FROM records") == [(1,)]
    assert "serving goes on" in caplog.text


async def test_server_that_goes_and_comes_back_misses_nothing(tmp_path: Path, postgresql: PostgresqlServer) -> None:
    async with running(tmp_path, postgresql.new_database()) as plane:
        plane.take(ALICE, 1, [record()])
        plane.post([], {posting(): 1}, RATES)
        await plane.written()
        await asyncio.to_thread(postgresql.stop)
        try:
            plane.take(ALICE, 2, [record()])
            plane.post([], {posting(): 10}, RATES)
            await plane.until(lambda: not plane.ledger.state().up)
            with pytest.raises(NoCapacityError, match="cannot be read"):
                await asyncio.to_thread(plane.ledger.queries.request, "r1")
        finally:
            await asyncio.to_thread(postgresql.start)
        await plane.written()
        assert plane.rows("SELECT count(*) FROM records") == [(2,)]
        assert plane.rows("SELECT sum(energy_uj) FROM energy_hours") == [(11,)]
        assert len(plane.ledger.queries.request("r1")) == 2


async def test_server_that_was_never_there_leaves_serving_alone(tmp_path: Path) -> None:
    short = Seconds(0.01)
    async with running(tmp_path, f"postgresql://nobody@/nothing?host={tmp_path}", bound=short) as plane:
        assert not plane.take(ALICE, 1, [record()])
        await plane.until(lambda: plane.ledger.state().problem != "It was not opened yet.")
        assert not await plane.ledger.flush(short)
        assert plane.ledger.state().waiting == 1


@pytest.mark.parametrize(
    "url",
    [
        "nonsense",
        "mysql://root:hush-hush@localhost/x",
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:///file:x?mode=memory",
        "postgresql://me:hush-hush@host:port/x",
        "postgresql://me:hush-hush@[::1/x",
    ],
)
def test_url_that_cannot_be_used_is_refused_before_anything_starts(tmp_path: Path, url: str) -> None:
    engine = {"name": "e", "model": "m", "url": "http://127.0.0.1:1"}
    with pytest.raises(ConfigError, match="ledger: `url`") as refused:
        parse_config({"engines": [engine], "ledger": {"url": url}}, source=tmp_path / "w.yaml", environ={})
    assert "hush-hush" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:////a/b.sqlite", "/a/b.sqlite"),
        ("sqlite:///b.sqlite", "/state/b.sqlite"),
        (None, "/state/ledger.sqlite"),
    ],
)
def test_file_of_a_url_is_absolute_or_in_the_state_folder(url: str | None, path: str) -> None:
    assert str(Database(LedgerSettings(url=url), Path("/state")).path) == path


async def test_password_is_never_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with running(tmp_path, f"postgresql://me:hush-hush@/x?host={tmp_path}") as plane:
        await plane.until(lambda: caplog.records)
        with pytest.raises(NoCapacityError) as refused:
            await asyncio.to_thread(plane.ledger.queries.request, "r1")
    assert "hush-hush" not in caplog.text + str(refused.value)
