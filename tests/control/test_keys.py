"""Keys are stored as digests, open what they should, and what they closed stays closed."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from server.config import Config, ControlSettings
from server.config.load import parse_config
from server.control.doors import Door, door_problems, guarded_kinds, is_loopback
from server.control.key_book import KeyBook
from server.control.keys import KeyKind, KeyStore, NewKey, digest_of, store_path
from server.errors import ConflictError, NotFoundError, StartError
from tests.fakes.clock import FakeClock

pytestmark = pytest.mark.anyio

A_DAY = 86_400.0


def store(folder: Path, clock: FakeClock | None = None) -> KeyStore:
    return KeyStore(store_path(folder), clock or FakeClock())


class Desk:
    """A key book, and how often it said that something changed."""

    def __init__(self, folder: Path, *always_closed: KeyKind) -> None:
        self.clock = FakeClock()
        self.changes = 0
        self.book = KeyBook(store(folder, self.clock), self.clock, always_closed=always_closed, changed=self._changed)

    def _changed(self) -> None:
        self.changes += 1


# --- the store --------------------------------------------------------------------------------------------------------


def test_secret_is_told_once_and_not_stored(tmp_path: Path) -> None:
    key, secret = store(tmp_path).create(NewKey(tenant="acme", models=("demo", "demo:int4"), requests_per_minute=5))
    assert secret.startswith("wg-")
    assert len(secret) >= 3 + 32
    assert key.digest == digest_of(secret)
    on_disk = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert secret.encode() not in on_disk
    assert secret[:20].encode() not in on_disk
    assert store(tmp_path).listed() == [key]


def test_file_is_readable_by_its_owner_only_and_says_its_version(tmp_path: Path) -> None:
    store(tmp_path).create(NewKey())
    for file in tmp_path.iterdir():
        assert file.stat().st_mode & 0o777 == 0o600, file
    with closing(sqlite3.connect(store_path(tmp_path))) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (1,)
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_file_of_a_newer_version_or_a_broken_one_is_refused_with_the_reason(tmp_path: Path) -> None:
    store(tmp_path).create(NewKey())
    with closing(sqlite3.connect(store_path(tmp_path))) as database:
        database.execute("PRAGMA user_version = 2")
    with pytest.raises(StartError, match="version 2"):
        store(tmp_path).listed()
    store_path(tmp_path).write_bytes(b"no database at all, but long enough to be looked at")
    with pytest.raises(StartError, match="cannot be used"):
        store(tmp_path).listed()


def test_looking_at_the_keys_makes_no_file(tmp_path: Path) -> None:
    assert store(tmp_path).listed() == []
    assert list(tmp_path.iterdir()) == []


def test_key_is_revoked_once_and_stays_in_the_list(tmp_path: Path) -> None:
    keys = store(tmp_path)
    key, _ = keys.create(NewKey())
    revoked = keys.revoke(key.id)
    assert [one.state(0.0) for one in keys.listed()] == ["revoked"]
    assert revoked == keys.listed()[0]
    with pytest.raises(ConflictError):
        keys.revoke(key.id)
    with pytest.raises(NotFoundError, match="key list"):
        keys.revoke("key-none")


def test_two_who_make_keys_at_the_same_time_both_succeed(tmp_path: Path) -> None:
    async def both() -> None:
        await asyncio.gather(*(asyncio.to_thread(store(tmp_path).create, NewKey()) for _ in range(8)))

    asyncio.run(both())
    assert len({key.id for key in store(tmp_path).listed()}) == 8


# --- the book ---------------------------------------------------------------------------------------------------------


async def test_workers_get_digests_and_grants_and_none_if_there_never_was_a_key(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    await desk.book.load()
    assert desk.book.grants() is None
    await desk.book.create(NewKey(kind=KeyKind.ADMIN))
    assert desk.book.grants() is None
    key, secret = await desk.book.create(NewKey(tenant="acme", models=("demo",), tokens_per_minute=7, priority=-1))
    assert desk.book.grants() == {digest_of(secret): key.grant()}
    grant = key.grant()
    assert (grant.tenant, grant.models, grant.tokens_per_minute, grant.priority) == ("acme", ["demo"], 7, -1)
    assert desk.changes == 3


async def test_what_a_key_closed_stays_closed_after_the_last_was_revoked(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    key, _ = await desk.book.create(NewKey())
    await desk.book.revoke(key.id)
    assert desk.book.grants() == {}
    again = Desk(tmp_path)
    await again.book.load()
    assert again.book.grants() == {}


async def test_what_others_can_reach_is_closed_even_if_the_store_is_lost(tmp_path: Path) -> None:
    desk = Desk(tmp_path, KeyKind.CLIENT, KeyKind.ADMIN)
    await desk.book.load()
    assert desk.book.grants() == {}
    assert desk.book.closes(KeyKind.ADMIN)


async def test_last_admin_key_cannot_be_revoked(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    first, _ = await desk.book.create(NewKey(kind=KeyKind.ADMIN))
    with pytest.raises(ConflictError, match="wattgate key create --admin"):
        await desk.book.revoke(first.id)
    await desk.book.create(NewKey(kind=KeyKind.ADMIN))
    await desk.book.revoke(first.id)


async def test_key_that_expires_leaves_and_that_is_told(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    await desk.book.create(NewKey(expires_in_days=0.05 / A_DAY))
    assert len(desk.book.grants() or {}) == 1
    told = asyncio.Event()
    desk.book._changed = told.set
    watching = asyncio.create_task(desk.book.run())
    desk.clock.advance(1.0)
    async with asyncio.timeout(10):
        await told.wait()
    watching.cancel()
    assert desk.book.grants() == {}
    assert [key.state(desk.clock.wall()) for key in desk.book.listed()] == ["expired"]


# --- the control port -------------------------------------------------------------------------------------------------


async def said(request: Request) -> PlainTextResponse:
    return PlainTextResponse(request.url.path)


@asynccontextmanager
async def port(book: KeyBook, **settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    app = Starlette(routes=[Route("/{path:path}", said, methods=["GET", "POST"])])
    door = Door(app, keys=book, settings=ControlSettings(**settings))
    transport = httpx.ASGITransport(door)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8081") as client:
        yield client


def bearer(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


async def test_control_port_is_open_while_there_is_no_admin_key(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    async with port(desk.book) as client:
        assert (await client.post("/api/engines/restart")).status_code == 200


async def test_control_port_needs_the_admin_key_once_there_is_one(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    _, admin = await desk.book.create(NewKey(kind=KeyKind.ADMIN))
    _, other = await desk.book.create(NewKey())
    async with port(desk.book) as client:
        for path in ("/api/status", "/api/live", "/metrics", "/docs"):
            nobody = await client.get(path)
            assert nobody.status_code == 401
            assert nobody.headers["www-authenticate"] == "Bearer"
            assert nobody.json()["error"]["type"] == "authentication_error"
            assert (await client.get(path, headers=bearer(other))).status_code == 401
            assert (await client.get(path, headers=bearer(admin))).status_code == 200
            assert (await client.get(path, headers={"authorization": f"bearer  {admin}"})).status_code == 200
        for path in ("/health", "/", "/live/live.js"):  # the page itself says nothing: it asks for the key
            assert (await client.get(path)).status_code == 200
        assert other not in (await client.get("/api/status", headers=bearer(other))).text


async def test_metrics_key_reads_the_metrics_and_nothing_else(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    await desk.book.create(NewKey(kind=KeyKind.ADMIN))
    key, metrics = await desk.book.create(NewKey(kind=KeyKind.METRICS))
    async with port(desk.book) as client:
        assert (await client.get("/metrics", headers=bearer(metrics))).status_code == 200
        for path in ("/api/status", "/metrics/", "/%2Fmetrics", "/metrics/../api/keys", "/live/../api/keys"):
            assert (await client.get(path, headers=bearer(metrics))).status_code == 401
        await desk.book.revoke(key.id)
        assert (await client.get("/metrics", headers=bearer(metrics))).status_code == 401


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8081", 200),
        ("localhost", 200),
        ("LOCALHOST:99", 200),
        ("[::1]:8081", 200),
        ("gate.example:8081", 200),
        ("inside.example", 200),
        ("attacker.example:8081", 403),
        ("127.0.0.1.attacker.example", 403),
        ("10.1.2.3:8081", 403),
        ("", 403),
    ],
)
async def test_host_must_be_one_of_ours(tmp_path: Path, host: str, status: int) -> None:
    desk = Desk(tmp_path)
    async with port(desk.book, host="gate.example", allowed_hosts=["Inside.example"]) as client:
        assert (await client.get("/api/status", headers={"host": host})).status_code == status
        assert (await client.get("/health", headers={"host": host})).status_code == 200


async def test_any_address_but_no_name_reaches_a_port_that_listens_on_all(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    async with port(desk.book, host="0.0.0.0") as client:
        assert (await client.get("/api/status", headers={"host": "10.1.2.3:8081"})).status_code == 200
        assert (await client.get("/api/status", headers={"host": "attacker.example"})).status_code == 403


# --- at start ---------------------------------------------------------------------------------------------------------


def config(folder: Path, **hosts: str) -> Config:
    engine = {"name": "one", "model": "demo", "precision": "bf16", "url": "http://127.0.0.1:9"}
    sections = {section: {"host": host} for section, host in hosts.items()}
    data = {"state_dir": str(folder), "engines": [engine], **sections}
    return parse_config(data, source=folder / "wattgate.yaml", environ={})


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_loopback_needs_no_key(tmp_path: Path, host: str) -> None:
    assert is_loopback(host)
    assert list(door_problems(config(tmp_path, gateway=host, control=host), FakeClock())) == []
    assert guarded_kinds(config(tmp_path, gateway=host, control=host)) == frozenset()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "gate.example", "127.0.0.1.attacker.example"])
def test_other_addresses_need_a_key_that_holds(tmp_path: Path, host: str) -> None:
    clock = FakeClock()
    wanted = config(tmp_path, gateway=host, control=host)
    assert guarded_kinds(wanted) == {KeyKind.CLIENT, KeyKind.ADMIN}
    (gateway, gateway_why), (control, control_why) = door_problems(wanted, clock)
    assert (gateway, control) == ("gateway.host", "control.host")
    assert "wattgate key create --config" in gateway_why
    assert "wattgate key create --admin --config" in control_why
    keys = store(tmp_path, clock)
    keys.create(NewKey(expires_in_days=1))
    keys.create(NewKey(kind=KeyKind.ADMIN))
    assert list(door_problems(wanted, clock)) == []
    clock.advance(2 * A_DAY)
    assert [setting for setting, _ in door_problems(wanted, clock)] == ["gateway.host"]
