"""A replica that stops answering is unhealthy after three misses, and ready again at the first answer."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator

import httpx
import pytest

from server.clock import SystemClock
from server.control.board import Board
from server.control.health import HealthWatch
from server.control.scrape import EngineClient, max_model_len
from server.engines import ENGINES
from server.fleet import EngineState, Replica
from server.units import Seconds
from tests.control.conftest import BOUND_S

pytestmark = pytest.mark.anyio

MODELS = json.dumps({"object": "list", "data": [{"id": "m", "max_model_len": 77}]}).encode()


class Server:
    """Answers as its `answers` say: path → status; nothing at all while `up` is false."""

    def __init__(self) -> None:
        self.up = True
        self.answers: dict[str, int] = {}

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            head = await reader.readuntil(b"\r\n\r\n")
            path = head.split()[1].decode()
            body = MODELS if path == "/v1/models" else b"{}"
            status = self.answers.get(path, 200)
            if self.up:
                writer.write(
                    f"HTTP/1.1 {status} x\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n".encode()
                )
                writer.write(body)
                await writer.drain()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


@contextlib.asynccontextmanager
async def client_of(server: Server, kind: str) -> AsyncIterator[EngineClient]:
    listener = await asyncio.start_server(server.handle, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    async with listener, httpx.AsyncClient(trust_env=False) as http:
        yield EngineClient(http, ENGINES[kind], f"http://127.0.0.1:{port}", None)


def replica() -> Replica:
    return Replica(
        name="far",
        model="m",
        variant="bf16",
        precision="bf16",
        task="generate",
        kind="openai",
        launcher="external",
        state=EngineState.STARTING,
        since=Seconds(0),
        url="http://far",
        api_key=None,
        upstream_model="m",
        max_model_len=None,
        adapters=frozenset(),
        restarts=0,
        pid=None,
        device="remote",
        cores=frozenset(),
        card=None,
        engine_version=None,
        problem=None,
        log_path=None,
        memory_bytes=None,
        gauges=None,
    )


async def until_state(board: Board, state: EngineState) -> Replica:
    seen = 0
    async with asyncio.timeout(BOUND_S):
        while board.get("far").state is not state:
            seen = await board.wait_change(seen)
    return board.get("far")


async def test_replica_is_unhealthy_while_it_is_silent_and_ready_when_it_answers() -> None:
    board, server = Board([replica()], SystemClock()), Server()
    async with client_of(server, "openai") as client, asyncio.TaskGroup() as group:
        watch = HealthWatch(board=board, name="far", client=client, pid=None, gpus=(), checked=bool, interval_s=0.001)
        task = group.create_task(watch.until_hopeless())
        assert (await until_state(board, EngineState.READY)).max_model_len == 77
        server.up = False
        silent = await until_state(board, EngineState.UNHEALTHY)
        assert silent.problem is not None
        assert "correct its `url`" in silent.problem
        server.up = True
        assert (await until_state(board, EngineState.READY)).problem is None
        task.cancel()


async def test_engine_of_this_machine_that_stays_silent_is_hopeless_and_one_elsewhere_never_is() -> None:
    server, checks = Server(), asyncio.Queue[None]()
    server.up = False
    async with client_of(server, "openai") as client, asyncio.TaskGroup() as group, asyncio.timeout(BOUND_S):
        board = Board([replica()], SystemClock())
        here = HealthWatch(
            board=board, name="far", client=client, pid=os.getpid(), gpus=(), checked=bool, interval_s=0, hopeless=5
        )
        await here.until_hopeless()
        assert board.get("far").state is EngineState.UNHEALTHY
        far = HealthWatch(
            board=board,
            name="far",
            client=client,
            pid=None,
            gpus=(),
            checked=lambda: checks.put_nowait(None),
            interval_s=0,
            hopeless=5,
        )
        task = group.create_task(far.until_hopeless())
        for _ in range(10):
            await checks.get()
        assert not task.done()
        task.cancel()


@pytest.mark.parametrize(
    ("kind", "answers", "healthy"),
    [
        ("openai", {}, True),
        ("openai", {"/health": 404}, True),
        ("openai", {"/health": 405, "/v1/models": 401}, False),
        ("openai", {"/health": 404, "/v1/models": 404}, False),
        ("openai", {"/health": 503}, False),
        ("vllm", {"/health": 404}, False),
    ],
)
async def test_health_is_told_by_the_first_path_that_exists(kind: str, answers: dict[str, int], healthy: bool) -> None:
    server = Server()
    server.answers = answers
    async with client_of(server, kind) as client:
        assert await client.healthy() is healthy


async def test_server_that_is_not_there_answers_nothing_and_raises_nothing() -> None:
    async with httpx.AsyncClient(trust_env=False) as http:
        client = EngineClient(http, ENGINES["vllm"], "http://127.0.0.1:1", "key")
        assert await client.healthy() is False
        assert await client.models() is None
        assert await client.version() is None
        assert await client.gauges() is None


@pytest.mark.parametrize(
    ("cards", "length"),
    [
        ([{"id": "a", "max_model_len": 1}, {"id": "b", "max_model_len": 2}], 2),
        ([{"id": "a"}, {"id": "c", "max_model_len": 3}], 3),
        (["nonsense", {"id": "b", "max_model_len": "long"}], None),
        ([], None),
    ],
)
async def test_context_length_is_that_of_the_model_that_was_asked_for(cards: list[object], length: int | None) -> None:
    assert max_model_len({"data": cards}, "b") == length
