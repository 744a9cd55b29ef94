"""An engine that misbehaves as a probe says, and remembers what it was sent."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final, cast

from tests.fakes.scripted_engine import DONE, SSE, chunked, head, role, token, usage

__all__ = ["ANSWER", "Exchange", "ProbeEngine", "Script", "answer", "stream"]

ANSWER: Final = (
    b'{"id":"c-1","object":"chat.completion","created":1,"model":"demo","choices":[{"index":0,"message":'
    b'{"role":"assistant","content":"Hello"},"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":9,"completion_tokens":3,"total_tokens":12}}'
)
_MODELS: Final = b'{"object":"list","data":[{"id":"demo","object":"model","created":1,"owned_by":"probe"}]}'
_JSON: Final = (b"content-type", b"application/json")


class Exchange:
    """One request that reached the engine, and the connection to answer it on."""

    def __init__(self, transport: asyncio.Transport, start: bytes, body: bytes) -> None:
        self.transport, self.start, self.body = transport, start, body
        self.gone = asyncio.Event()
        self.gone_at: float | None = None
        """When the gateway closed the connection, monotonic s."""

    def send(self, *data: bytes) -> None:
        """Write in one piece, unless the gateway has gone."""
        if not self.transport.is_closing():
            self.transport.write(b"".join(data))

    def stream_head(self) -> None:
        """Begin a chunked stream of events."""
        self.send(head(200, (b"content-type", SSE), (b"transfer-encoding", b"chunked")))

    def events(self, *events: bytes) -> None:
        """Write events, a chunk each."""
        self.send(*(chunked(event) for event in events))


Script = Callable[[Exchange], Awaitable[None]]


def answer(body: bytes = ANSWER, status: int = 200, *headers: tuple[bytes, bytes]) -> Script:
    """A whole answer."""

    async def script(exchange: Exchange) -> None:
        exchange.send(head(status, _JSON, (b"content-length", b"%d" % len(body)), *headers), body)

    return script


def stream(prompt: int, output: int) -> Script:
    """A stream of three tokens that ends well, with these counts if they are asked for."""

    async def script(exchange: Exchange) -> None:
        exchange.stream_head()
        exchange.events(role(model="demo"), *(token(" tok", model="demo") for _ in range(3)))
        exchange.events(token("", model="demo", finish="stop"))
        if b"include_usage" in exchange.body:
            exchange.events(usage(prompt, output, model="demo"))
        exchange.events(DONE)
        exchange.send(chunked(b""))

    return script


class ProbeEngine:
    """Listens on a port of its own; answers POSTs by the script of the moment, and health checks always well."""

    def __init__(self) -> None:
        self.script: Script = answer()
        self.exchanges: list[Exchange] = []
        self.port = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._arrived = asyncio.Condition()

    def begin(self, script: Script) -> None:
        """Answer by this script from now on, and forget what came before."""
        self.script, self.exchanges = script, []

    def take(self, exchange: Exchange) -> None:
        self.exchanges.append(exchange)
        for work in (self.script(exchange), self._tell()):
            task = asyncio.get_running_loop().create_task(_run(work))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _tell(self) -> None:
        async with self._arrived:
            self._arrived.notify_all()

    async def exchange(self, bound_s: float = 5.0) -> Exchange:
        """The first request since `begin`. Raises TimeoutError."""
        async with asyncio.timeout(bound_s), self._arrived:
            await self._arrived.wait_for(lambda: bool(self.exchanges))
        return self.exchanges[0]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[ProbeEngine]:
        """Listen while the block runs."""
        server = await asyncio.get_running_loop().create_server(lambda: _Connection(self), "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()


async def _run(work: Awaitable[None]) -> None:
    with suppress(ConnectionError):
        await work


class _Connection(asyncio.Protocol):
    transport: asyncio.Transport

    def __init__(self, engine: ProbeEngine) -> None:
        self.engine = engine
        self.buffer = b""
        self.exchange: Exchange | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.exchange is not None:
            self.exchange.gone_at = time.monotonic()
            self.exchange.gone.set()

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        start, found, rest = self.buffer.partition(b"\r\n\r\n")
        if not found:
            return
        if not start.startswith(b"POST"):
            self.buffer = b""
            body = b"" if start.startswith(b"HEAD") else _MODELS
            self.transport.write(head(200, _JSON, (b"content-length", b"%d" % len(body))) + body)
            return
        body_and_length = _body(start, rest)
        if body_and_length is None:
            return
        body, length = body_and_length
        self.buffer = rest[length:]
        self.exchange = Exchange(self.transport, start, body)
        self.engine.take(self.exchange)


def _body(start: bytes, rest: bytes) -> tuple[bytes, int] | None:
    """A request's body and its length on the wire; None: not all of it is here."""
    fields = dict(line.lower().split(b":", 1) for line in start.split(b"\r\n")[1:])
    if b"chunked" not in fields.get(b"transfer-encoding", b""):
        length = int(fields.get(b"content-length", b"0"))
        return (rest[:length], length) if len(rest) >= length else None
    if not rest.endswith(b"0\r\n\r\n"):
        return None
    body, left = b"", rest
    while (size := int(left.partition(b"\r\n")[0], 16)) > 0:
        left = left.partition(b"\r\n")[2]
        body, left = body + left[:size], left[size + 2 :]
    return body, len(rest)
