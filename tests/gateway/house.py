"""A worker under uvicorn on a real socket, a scripted engine behind it, a fake control plane beside it."""

from __future__ import annotations

import asyncio
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from server.clock import SystemClock
from server.config.settings import GatewaySettings
from server.gateway.app import create_app
from server.gateway.listener import Listener
from server.gateway.path import serve
from server.gateway.worker import Identity, Worker
from server.units import Seconds
from server.wire import Candidate, ReplicaAddress, Route, Snapshot
from tests.fakes.control_plane import FakeControlPlane
from tests.fakes.scripted_engine import ScriptedEngine

__all__ = [
    "ANSWER",
    "MESSAGES",
    "House",
    "candidate",
    "open_house",
    "problem",
    "replica",
    "route",
    "standing_still",
    "table",
    "until",
]


ANSWER: dict[str, Any] = {
    "id": "c-1",
    "object": "chat.completion",
    "model": "demo:bf16",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 9, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 4}},
}
MESSAGES = [{"role": "user", "content": "Hi"}]


def problem(response: httpx.Response) -> dict[str, Any]:
    """The error in an answer, which must have OpenAI's form."""
    assert response.headers["content-type"] == "application/json"
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return dict(error)


async def until(true: Callable[[], bool]) -> None:
    """Let the event loop run until something that it does makes it true."""
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110  # what is waited for lies inside the gateway and tells nobody
            await asyncio.sleep(0.001)


def standing_still(read: Callable[[], int]) -> Callable[[], bool]:
    """True once a value was the same in a hundred readings in a row."""
    seen: list[int] = []

    def still() -> bool:
        seen.append(read())
        return len(seen) > 100 and len(set(seen[-100:])) == 1

    return still


class Server(uvicorn.Server):
    """uvicorn without its waits of 0.1 s and without signals."""

    def __init__(self, config: uvicorn.Config, *, port: int) -> None:
        super().__init__(config)
        self.port = port
        self.stop = asyncio.Event()

    def drain(self) -> None:
        """What SIGTERM begins: every connection is told."""
        for connection in list(self.server_state.connections):
            connection.shutdown()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def main_loop(self) -> None:
        await self.on_tick(0)
        await self.stop.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        self.drain()
        await until(lambda: not self.server_state.connections and not self.server_state.tasks)


def replica(port: int, **changes: Any) -> ReplicaAddress:
    known = {
        "name": "engine-a",
        "host": "127.0.0.1",
        "port": port,
        "tls": False,
        "path_prefix": "",
        "api_key": "engine-secret",
        "healthy": True,
        "rewrite_model": False,
    }
    return ReplicaAddress(**{**known, **changes})


def candidate(**changes: Any) -> Candidate:
    known = {
        "replica": "engine-a",
        "model": "demo",
        "variant": "bf16",
        "precision": "bf16",
        "adapter": "none",
        "upstream_model": "demo:bf16",
        "answer_model": "demo:bf16",
    }
    return Candidate(**{**known, **changes})


def route(name: str, *candidates: Candidate, task: str = "generate", **changes: Any) -> Route:
    known = {"policy": "first", "listed": True, "card": {"precision": "bf16", "parameters": 4_200_000}}
    return Route(id=name, task=task, candidates=list(candidates), **{**known, **changes})


def table(version: int, replicas: list[ReplicaAddress], *routes: Route) -> Snapshot:
    return Snapshot(
        version=version, replicas={one.name: one for one in replicas}, routes={one.id: one for one in routes}
    )


@dataclass
class House:
    """Everything that one test of the path needs."""

    engine: ScriptedEngine
    control: FakeControlPlane
    worker: Worker
    client: httpx.AsyncClient
    port: int
    server: Server
    versions: Iterator[int] = field(default_factory=lambda: iter(range(1, 1000)))

    async def know(self, *routes: Route, replicas: list[ReplicaAddress] | None = None, **changes: Any) -> None:
        """Give the worker a routing table; without routes: `demo` and `demo:bf16` at the scripted engine."""
        routes = routes or (route("demo:bf16", candidate()), route("demo", candidate()))
        one = table(next(self.versions), replicas or [replica(self.engine.port, **changes)], *routes)
        self.control.push(one)
        await until(lambda: getattr(self.worker.router.snapshot, "version", None) == one.version)

    async def chat(self, **changes: Any) -> httpx.Response:
        body = {"model": "demo:bf16", "messages": [{"role": "user", "content": "Hi"}], **changes}
        return await self.client.post("/v1/chat/completions", json=body)

    async def dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A client's bare connection."""
        return await asyncio.open_connection("127.0.0.1", self.port)


@asynccontextmanager
async def serving(worker: Worker, *, last_call: float = 0.0) -> AsyncIterator[Server]:
    """The worker's app under uvicorn."""
    sock = socket.create_server(("127.0.0.1", 0))
    listener = Listener(
        worker.settings,
        partial(serve, worker),
        check_key=worker.keys.holder_of,
        clock=worker.clock,
        last_call=Seconds(last_call),
    )
    server = Server(listener.config(create_app(worker)), port=sock.getsockname()[1])
    async with worker.alive():
        running = asyncio.ensure_future(server.serve(sockets=[sock]))
        try:
            yield server
        finally:
            server.stop.set()
            await running


@asynccontextmanager
async def open_house(*, last_call: float = 0.0, **settings: Any) -> AsyncIterator[House]:
    """A house with these gateway settings; the routing table is not yet known."""
    quick = {"connect_timeout_s": 5, "first_byte_timeout_s": 20, "whole_answer_timeout_s": 20, "idle_timeout_s": 20}
    with tempfile.TemporaryDirectory(prefix="wg") as folder:
        bus = Path(folder) / "bus"
        worker = Worker(
            GatewaySettings(**{**quick, **settings}),
            Identity(slot=0, pid=1, boot="b00t"),
            bus=bus,
            clock=SystemClock(),
            flush_every=Seconds(0.005),
        )
        control = FakeControlPlane(bus)
        async with (
            ScriptedEngine().running() as engine,
            control.running(),
            serving(worker, last_call=last_call) as server,
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", timeout=20) as client,
        ):
            await control.until(lambda: bool(control.hellos))
            yield House(engine=engine, control=control, worker=worker, client=client, port=server.port, server=server)
