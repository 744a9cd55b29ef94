"""A replica is watched: by checks, by what workers saw, and by asking for a token."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
from collections.abc import AsyncIterator, Callable

import httpx
import pytest

from server.config import HealthSettings
from server.control.board import Board
from server.control.health import HealthWatch
from server.control.scrape import EngineClient, max_model_len
from server.control.witness import Witness
from server.engines import ENGINES
from server.fleet import Ejection, EngineState, Replica
from server.units import Seconds
from server.wire import ReplicaSeen
from tests.control.conftest import BOUND_S
from tests.fakes.clock import FakeClock

pytestmark = pytest.mark.anyio

MODELS = json.dumps({"object": "list", "data": [{"id": "m", "max_model_len": 77}]}).encode()


class Server:
    """Answers as its `answers` say: path → status; nothing at all while `up` is false."""

    def __init__(self) -> None:
        self.up = True
        self.yields = True
        """Whether it answers a request for a token."""
        self.probes = 0
        self.on_probe: Callable[[], object] = bool
        self.answers: dict[str, int] = {}

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            head = await reader.readuntil(b"\r\n\r\n")
            path = head.split()[1].decode()
            body = MODELS if path == "/v1/models" else b"{}"
            status = self.answers.get(path, 200)
            asked = path == "/v1/chat/completions"
            if asked:
                self.probes += 1
                self.on_probe()
            if self.up and (self.yields or not asked):
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


class Ward:
    """One replica under watch: its server, its board, its workers' sightings, and a clock that stands."""

    def __init__(self, client: EngineClient, pid: int | None = None, *, siblings: int = 0) -> None:
        self.clock = FakeClock()
        others = [dataclasses.replace(replica(), name=f"other-{n}", state=EngineState.READY) for n in range(siblings)]
        self.board = Board([replica(), *others], self.clock)
        self.witness = Witness(self.clock)
        self.checks = asyncio.Queue[None]()
        self.watch = HealthWatch(
            board=self.board,
            name="far",
            client=client,
            probe=ENGINES["openai"].probe("m", "generate"),
            pid=pid,
            gpus=(),
            checked=lambda: self.checks.put_nowait(None),
            clock=self.clock,
            settings=HealthSettings(),
            witness=self.witness,
            interval_s=0.001,
        )

    async def until(self, state: EngineState) -> Replica:
        seen = 0
        async with asyncio.timeout(BOUND_S):
            while self.board.get("far").state is not state:
                seen = await self.board.wait_change(seen)
        return self.board.get("far")

    async def checked(self, times: int = 3) -> Replica:
        """Once it was checked so many times more."""
        while not self.checks.empty():
            self.checks.get_nowait()
        async with asyncio.timeout(BOUND_S):
            for _ in range(times):
                await self.checks.get()
        return self.board.get("far")

    def saw(self, **counts: int) -> EngineState:
        """Workers tell; the state after that."""
        assert self.witness.on_seen is not None
        self.witness.on_seen(ReplicaSeen(**counts))
        return self.board.get("far").state


@contextlib.asynccontextmanager
async def watched(server: Server, *, siblings: int = 0) -> AsyncIterator[Ward]:
    async with client_of(server, "openai") as client, asyncio.TaskGroup() as group:
        ward = Ward(client, siblings=siblings)
        task = group.create_task(ward.watch.until_hopeless())
        yield ward
        task.cancel()


async def test_replica_is_unhealthy_while_it_is_silent_and_on_trial_when_it_answers() -> None:
    server = Server()
    async with watched(server) as ward:
        assert (await ward.until(EngineState.READY)).max_model_len == 77
        server.up = False
        silent = await ward.until(EngineState.UNHEALTHY)
        assert silent.problem is not None
        assert "correct its `url`" in silent.problem
        assert silent.ejections == {Ejection.SILENT: 1}
        server.up = True
        assert (await ward.checked()).state is EngineState.UNHEALTHY, "the backoff is not over"
        ward.clock.advance(1.1)
        assert "as a trial" in str((await ward.until(EngineState.HALF_OPEN)).problem)
        assert (await ward.checked()).state is EngineState.HALF_OPEN
        assert ward.saw(answered=1) is EngineState.READY
        assert (await ward.checked()).problem is None


async def test_replica_at_which_requests_fail_is_ejected_at_once_though_it_answers_its_checks() -> None:
    async with watched(Server(), siblings=1) as ward:
        await ward.until(EngineState.READY)
        assert ward.saw(answered=4, lost=1) is EngineState.SUSPECT
        assert ward.board.get("far").problem == "1 of the last 5 requests to it failed."
        assert ward.saw(lost=3, unreachable=1, broken=1) is EngineState.UNHEALTHY
        ejected = await ward.checked()
        assert str(ejected.problem).startswith("6 of the last 10 requests to it failed. Its address is http://far.")
        assert ejected.ejections == {Ejection.FAILURES: 1}
        ward.clock.advance(1.1)
        await ward.until(EngineState.HALF_OPEN)
        assert ward.saw(unreachable=1) is EngineState.UNHEALTHY
        ward.clock.advance(1.5)
        assert (await ward.checked()).state is EngineState.UNHEALTHY, "it is away for longer"
        ward.clock.advance(1.0)
        assert (await ward.until(EngineState.HALF_OPEN)).ejections == {Ejection.FAILURES: 2}


async def test_refusals_eject_nobody() -> None:
    async with watched(Server()) as ward:
        await ward.until(EngineState.READY)
        assert ward.saw(refused=1000) is EngineState.READY
        assert (await ward.checked()).state is EngineState.READY


async def test_dead_replica_is_ejected_by_one_failed_request_and_one_check() -> None:
    server = Server()
    async with watched(server) as ward:
        await ward.until(EngineState.READY)
        await ward.checked()
        server.up = False
        ward.saw(lost=1)
        assert (await ward.until(EngineState.UNHEALTHY)).ejections == {Ejection.SILENT: 1}


async def test_replica_elsewhere_that_hangs_is_ejected_and_needs_a_token_to_come_back() -> None:
    server = Server()
    async with watched(server) as ward:
        await ward.until(EngineState.READY)
        server.yields = False
        ward.witness.holds("boot-1", 1)
        ward.clock.advance(59.0)
        assert (await ward.checked()).state is EngineState.READY
        ward.clock.advance(2.0)
        hung = await ward.until(EngineState.UNHEALTHY)
        assert "It hangs" in str(hung.problem)
        assert hung.ejections == {Ejection.HUNG: 1}
        ward.clock.advance(1.1)
        assert (await ward.checked()).state is EngineState.UNHEALTHY
        server.yields = True
        ward.clock.advance(5.0)
        assert (await ward.until(EngineState.READY)).problem is None


async def test_replica_that_yields_a_token_when_asked_does_not_hang() -> None:
    server = Server()
    async with watched(server) as ward:
        await ward.until(EngineState.READY)
        ward.witness.holds("boot-1", 1)
        ward.clock.advance(61.0)
        assert (await ward.checked()).state is EngineState.READY
        assert server.probes == 1
        ward.clock.advance(59.0)
        await ward.checked()
        assert server.probes == 1, "it is asked once in a while, not all the time"


async def test_sign_of_life_during_the_probe_is_believed() -> None:
    server = Server()
    async with client_of(server, "openai") as client:
        ward = Ward(client)
        ward.witness.holds("boot-1", 1)
        ward.clock.advance(61.0)
        server.yields = False
        server.on_probe = ward.witness.progressed
        assert not await ward.watch._hang.hangs()
        ward.clock.advance(61.0)
        server.on_probe = lambda: None
        assert await ward.watch._hang.hangs()


async def test_engine_whose_own_counters_move_does_not_hang() -> None:
    server = Server()
    async with client_of(server, "openai") as client:
        ward = Ward(client)
        hang = ward.watch._hang
        ward.witness.holds("boot-1", 1)
        hang.note(ENGINES["vllm"].gauges("vllm:iteration_tokens_total_count 7"))
        ward.clock.advance(40.0)
        hang.note(ENGINES["vllm"].gauges("vllm:iteration_tokens_total_count 8"))
        ward.clock.advance(40.0)
        hang.note(None)
        assert not await hang.hangs()
        assert server.probes == 0
        ward.clock.advance(21.0)
        server.yields = False
        assert await hang.hangs()


async def test_engine_of_this_machine_that_stays_silent_is_hopeless_and_one_elsewhere_never_is() -> None:
    server = Server()
    server.up = False
    async with client_of(server, "openai") as client, asyncio.TaskGroup() as group, asyncio.timeout(BOUND_S):
        here, far = Ward(client, os.getpid()), Ward(client)
        ended, going = (group.create_task(ward.watch.until_hopeless()) for ward in (here, far))
        for ward in (here, far):
            await ward.until(EngineState.UNHEALTHY)
            ward.clock.advance(61.0)
        assert await ended == "It ran, but answered no health check for 61 s."
        await far.checked(10)
        assert not going.done()
        going.cancel()


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
