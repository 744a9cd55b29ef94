"""An engine on a real socket that answers byte for byte as a test says, when the test says."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any, cast

__all__ = [
    "EngineConnection",
    "Script",
    "ScriptedEngine",
    "chunked",
    "head",
    "messages_stream",
    "named",
    "responses_stream",
    "sse",
    "token",
    "whole",
]

SSE = b"text/event-stream; charset=utf-8"
DONE = b"data: [DONE]\n\n"


def head(status: int = 200, *headers: tuple[bytes, bytes]) -> bytes:
    """An answer's head."""
    lines = [b"HTTP/1.1 %d Scripted" % status, *(name + b": " + value for name, value in headers)]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def chunked(data: bytes) -> bytes:
    """One chunk of a chunked body; of no data: its end."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def sse(frame: Any) -> bytes:
    """One server-sent event, as vLLM writes it."""
    return b"data: " + json.dumps(frame, separators=(",", ":")).encode() + b"\n\n"


def token(text: str, *, model: str = "demo:bf16", finish: str | None = None) -> bytes:
    """A chat chunk with a piece of text."""
    choice = {"index": 0, "delta": {"content": text}, "logprobs": None, "finish_reason": finish}
    return sse({"id": "c-1", "object": "chat.completion.chunk", "created": 1, "model": model, "choices": [choice]})


def role(*, model: str = "demo:bf16") -> bytes:
    """The first chunk of a chat stream, which carries no token."""
    choice = {"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}
    return sse({"id": "c-1", "object": "chat.completion.chunk", "created": 1, "model": model, "choices": [choice]})


def usage(prompt: int, output: int, *, cached: int | None = None, model: str = "demo:bf16") -> bytes:
    """The usage chunk at a stream's end."""
    counts: dict[str, Any] = {"prompt_tokens": prompt, "total_tokens": prompt + output, "completion_tokens": output}
    if cached is not None:
        counts["prompt_tokens_details"] = {"cached_tokens": cached}
    return sse(
        {"id": "c-1", "object": "chat.completion.chunk", "created": 1, "model": model, "choices": [], "usage": counts}
    )


def named(event: dict[str, Any]) -> bytes:
    """One server-sent event with a name, as the Responses and the Messages API have them."""
    return b"event: %b\n%b" % (event["type"].encode(), sse(event))


def responses_stream(*texts: str, prompt: int = 9, cached: int = 2, model: str = "demo:bf16") -> list[bytes]:
    """A stream of the Responses API, whole; the events with text stand at 3 and after."""
    counts = {
        "input_tokens": prompt,
        "input_tokens_details": {"cached_tokens": cached},
        "output_tokens": len(texts),
        "total_tokens": prompt + len(texts),
    }
    begun: dict[str, Any] = {
        "id": "resp_1",
        "object": "response",
        "model": model,
        "status": "in_progress",
        "usage": None,
    }
    item = {"content_index": 0, "item_id": "msg_1", "output_index": 0}
    events: list[dict[str, Any]] = [
        {"response": begun, "type": "response.created"},
        {"response": begun, "type": "response.in_progress"},
        {"item": {"id": "msg_1", "type": "message"}, "output_index": 0, "type": "response.output_item.added"},
        *({**item, "delta": text, "logprobs": [], "type": "response.output_text.delta"} for text in texts),
        {**item, "text": "".join(texts), "logprobs": [], "type": "response.output_text.done"},
        {"response": {**begun, "status": "completed", "usage": counts}, "type": "response.completed"},
    ]
    return [named({**event, "sequence_number": number}) for number, event in enumerate(events)]


def messages_stream(*texts: str, prompt: int = 9, cached: int = 2, model: str = "demo:bf16") -> list[bytes]:
    """A stream of the Messages API, whole; the events with text stand at 2 and after."""
    begun = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "content": [],
        "model": model,
        "stop_reason": None,
        "usage": {"input_tokens": prompt, "output_tokens": 0},
    }
    counts = {"input_tokens": prompt - cached, "output_tokens": len(texts), "cache_read_input_tokens": cached}
    delta = {"type": "text_delta"}
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": begun},
        {"type": "content_block_start", "content_block": {"type": "text", "text": ""}, "index": 0},
        *({"type": "content_block_delta", "delta": {**delta, "text": text}, "index": 0} for text in texts),
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": counts},
        {"type": "message_stop"},
    ]
    return [named(event) for event in events]


class EngineConnection(asyncio.Protocol):
    """One connection that the gateway opened, and the request that is being answered on it."""

    def __init__(self, engine: ScriptedEngine) -> None:
        self._engine = engine
        self._buffer = b""
        self._task: asyncio.Task[None] | None = None
        self.transport: asyncio.Transport
        self.target = ""
        self.headers: dict[str, str] = {}
        self.body = b""
        self.gone = asyncio.Event()
        """Set when the gateway has closed the connection."""

    @property
    def json(self) -> Any:
        """The request's body."""
        return json.loads(self.body)

    def send(self, *data: bytes) -> None:
        """Write in one piece."""
        self.transport.write(b"".join(data))

    async def until_gone(self) -> None:
        """Wait until the gateway has closed the connection."""
        async with asyncio.timeout(10):
            await self.gone.wait()

    def stream_head(self) -> None:
        """Begin a chunked stream of events."""
        self.send(head(200, (b"content-type", SSE), (b"transfer-encoding", b"chunked"), (b"server", b"uvicorn")))

    def event(self, *events: bytes) -> None:
        """Write events as chunks, in one piece."""
        self.send(*(chunked(event) for event in events))

    def close(self) -> None:
        """Close in order."""
        self.transport.close()

    def reset(self) -> None:
        """Die."""
        self.transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._engine.connections.append(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone.set()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        start, end, rest = self._buffer.partition(b"\r\n\r\n")
        if not end:
            return
        request_line, *lines = start.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = int(headers["content-length"])
        if len(rest) < length and not self._engine.answers_early:
            return
        self.target, self.headers, self.body = request_line, headers, rest[:length]
        self._buffer = rest[length:]
        self._engine.answer(self)


Script = Callable[[EngineConnection], Awaitable[None]]


def whole(content: Any, status: int = 200, *headers: tuple[bytes, bytes]) -> Script:
    """A script that answers with this JSON (or these bytes)."""
    body = content if isinstance(content, bytes) else json.dumps(content).encode()

    async def script(connection: EngineConnection) -> None:
        kind = [] if any(name == b"content-type" for name, _ in headers) else [(b"content-type", b"application/json")]
        connection.send(head(status, *kind, (b"content-length", b"%d" % len(body)), *headers), body)

    return script


def stream(*events: bytes) -> Script:
    """A script that streams these events, one read each as far as the network allows, and ends well."""

    async def script(connection: EngineConnection) -> None:
        connection.stream_head()
        for event in events:
            connection.event(event)
        connection.send(chunked(b""))

    return script


def verbatim(pieces: Iterable[bytes]) -> Script:
    """A script that writes these pieces and lets each leave before the next."""

    async def script(connection: EngineConnection) -> None:
        for piece in pieces:
            connection.send(piece)
            await asyncio.sleep(0)

    return script


class ScriptedEngine:
    """Answers the n-th request by the n-th script; the last one stays for all that follow."""

    def __init__(self) -> None:
        self.scripts: deque[Script] = deque([whole({"object": "scripted"})])
        self.connections: list[EngineConnection] = []
        self.requests: list[EngineConnection] = []
        """The connections in the order of the requests on them; one that carried two stands twice."""
        self.bodies: list[bytes] = []
        self.answers_early = False
        """Answer when the head is there, whatever of the body is."""
        self.port = 0
        self._arrived = asyncio.Condition()
        self._tasks: asyncio.TaskGroup
        self._pending: set[asyncio.Task[None]] = set()

    def then(self, *scripts: Script) -> None:
        """Answer by these scripts from now on."""
        self.scripts = deque(scripts)

    def answer(self, connection: EngineConnection) -> None:
        self.requests.append(connection)
        self.bodies.append(connection.body)
        script = self.scripts.popleft() if len(self.scripts) > 1 else self.scripts[0]
        for coroutine in (script(connection), self._tell()):
            task = self._tasks.create_task(coroutine)  # type: ignore[arg-type]
            self._pending.add(task)
            task.add_done_callback(self._pending.discard)

    async def _tell(self) -> None:
        async with self._arrived:
            self._arrived.notify_all()

    async def request(self, number: int = 1) -> EngineConnection:
        """The connection of the n-th request, once it is there."""
        async with asyncio.timeout(10), self._arrived:
            await self._arrived.wait_for(lambda: len(self.requests) >= number)
        return self.requests[number - 1]

    @asynccontextmanager
    async def running(self, tls: ssl.SSLContext | None = None) -> AsyncIterator[ScriptedEngine]:
        """Listen while the block runs; a script that raises fails the test."""
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as self._tasks:
            server = await loop.create_server(lambda: EngineConnection(self), "127.0.0.1", self.port, ssl=tls)
            self.port = server.sockets[0].getsockname()[1]
            try:
                yield self
            finally:
                server.close()
                for task in list(self._pending):
                    task.cancel()
                await self.drop_connections()

    async def drop_connections(self) -> None:
        """Close what is open, as an engine does with connections that are idle."""
        for connection in self.connections:
            connection.transport.abort()
        for connection in self.connections:
            await connection.until_gone()
        self.connections = []
