"""The worker as a process, started as the launcher starts it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import pytest

from server.config.settings import GatewaySettings
from tests.fakes.control_plane import FakeControlPlane
from tests.fakes.scripted_engine import DONE, EngineConnection, ScriptedEngine, chunked, role, token
from tests.gateway.house import candidate, replica, route, table

pytestmark = pytest.mark.anyio

CHAT = {"model": "demo", "messages": [{"role": "user", "content": "Hi"}]}


class Started:
    """A worker process, its listening socket held here as the launcher holds it."""

    def __init__(self, control: FakeControlPlane, engine: ScriptedEngine, port: int, folder: Path) -> None:
        self.control, self.engine, self.port, self.folder = control, engine, port, folder
        self.process: asyncio.subprocess.Process
        self.client: httpx.AsyncClient

    async def start(self, listener: socket.socket, *, drain_timeout_s: float = 5) -> None:
        """Until it has said that it serves."""
        settings = self.folder / "gateway.json"
        settings.write_text(GatewaySettings(drain_timeout_s=drain_timeout_s).model_dump_json())
        told, tell = os.pipe()
        self.process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "server.gateway", "--settings", str(settings), "--slot", "2"),
            *("--listen-fd", str(listener.fileno()), "--bus", str(self.folder / "bus"), "--ready-fd", str(tell)),
            pass_fds=[listener.fileno(), tell],
        )
        os.close(tell)
        with os.fdopen(told, "rb") as pipe:
            assert await asyncio.to_thread(pipe.read) == b"!"

    async def ended(self) -> int:
        async with asyncio.timeout(15):
            return await self.process.wait()


@asynccontextmanager
async def started(*, drain_timeout_s: float = 5) -> AsyncIterator[tuple[Started, socket.socket]]:
    with TemporaryDirectory(prefix="wg") as folder, socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        control = FakeControlPlane(Path(folder) / "bus")
        async with (
            ScriptedEngine().running() as engine,
            control.running(),
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20) as client,
        ):
            one = Started(control, engine, port, Path(folder))
            one.client = client
            control.push(table(1, [replica(engine.port)], route("demo", candidate())))
            await one.start(listener, drain_timeout_s=drain_timeout_s)
            try:
                yield one, listener
            finally:
                if one.process.returncode is None:
                    one.process.kill()
                    await one.process.wait()


def pss_kib(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def maps(pid: int) -> str:
    return Path(f"/proc/{pid}/maps").read_text()


async def test_worker_says_who_it_is_serves_and_ends_in_order_on_sigterm() -> None:
    async with started() as (one, _):
        assert (one.control.hellos[0].slot, one.control.hellos[0].pid) == (2, one.process.pid)
        assert (await one.client.post("/v1/chat/completions", json=CHAT)).status_code == 200
        one.process.send_signal(signal.SIGTERM)
        assert await one.ended() == 0
        assert len(one.control.records) == 1


async def test_running_stream_is_finished_and_recorded_before_the_worker_ends() -> None:
    finish = asyncio.Event()

    async def script(connection: EngineConnection) -> None:
        connection.stream_head()
        connection.event(role(), token("a"))
        await finish.wait()
        connection.event(token("b"), DONE)
        connection.send(chunked(b""))

    async with started() as (one, _):
        one.engine.then(script)
        async with one.client.stream("POST", "/v1/chat/completions", json={**CHAT, "stream": True}) as response:
            pieces = response.aiter_raw()
            await anext(pieces)
            one.process.send_signal(signal.SIGTERM)
            finish.set()
            rest = b"".join([piece async for piece in pieces])
        assert rest.endswith(DONE)
        assert await one.ended() == 0
        assert [record.outcome for record in one.control.records] == ["ok"]


async def test_stream_that_outlasts_the_drain_ends_with_an_error_event_and_a_record() -> None:
    async def script(connection: EngineConnection) -> None:
        connection.stream_head()
        connection.event(role(), token("a"))
        await connection.until_gone()

    async with started(drain_timeout_s=0.1) as (one, _):
        one.engine.then(script)
        async with one.client.stream("POST", "/v1/chat/completions", json={**CHAT, "stream": True}) as response:
            pieces = response.aiter_raw()
            await anext(pieces)
            one.process.send_signal(signal.SIGTERM)
            rest = b"".join([piece async for piece in pieces])
        assert b"shutting down" in rest
        assert b"[DONE]" not in rest
        assert await one.ended() == 0
        assert [record.outcome for record in one.control.records] == ["truncated"]


async def test_next_worker_serves_on_the_same_socket_what_came_while_there_was_none() -> None:
    async with started() as (one, listener):
        one.process.kill()
        await one.ended()
        waiting = asyncio.ensure_future(one.client.get("/health"))
        await one.start(listener)
        assert (await waiting).status_code == 200
        assert one.control.hellos[0].boot != one.control.hellos[1].boot


async def test_idle_worker_is_small() -> None:
    async with started() as (one, _):
        assert pss_kib(one.process.pid) < 80_000
        assert "/numpy/" not in maps(one.process.pid)
        assert "/torch/" not in maps(one.process.pid)
