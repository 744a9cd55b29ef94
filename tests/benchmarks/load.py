"""A load client on raw sockets: closed loop, keep-alive, every byte of the answers accounted for."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field
from typing import Any, Final, cast

__all__ = ["Counts", "Load", "Shape", "chat_body", "chat_request"]

TOKEN: Final = b'" tok"'
"""What only a chunk with a token carries, whoever wrote the JSON anew."""
_END_OF_BODY: Final = b"\r\n0\r\n\r\n"
_OK: Final = b"HTTP/1.1 200"
_DONE: Final = b"[DONE]"
_TAIL: Final = 64
_AT_ONCE: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What every request of a load is like."""

    connections: int
    chunks: int | None = None
    """Chunks of each stream; None: the answers are whole."""
    pace_s: float = 0.0
    """Seconds between the chunks of one stream."""


@dataclass(slots=True, kw_only=True)
class Counts:
    """What a load has done so far; latencies of whole answers or of first chunks, ns."""

    requests: int = 0
    chunks: int = 0
    failed: int = 0
    latencies_ns: list[int] = field(default_factory=list)
    gaps_ns: list[int] = field(default_factory=list)


def chat_body(shape: Shape, **more: Any) -> bytes:
    """The JSON of a chat request of this shape."""
    body: dict[str, Any] = {
        "model": "demo",
        "messages": [{"role": "user", "content": "Say hello to the world, please, and be quick."}],
        "max_tokens": shape.chunks or 64,
        "temperature": 0,
    }
    if shape.chunks is not None:
        body |= {"stream": True, "user": f"pace={shape.pace_s:g}"}
    return json.dumps({**body, **more}, separators=(",", ":")).encode()


def chat_request(port: int, body: bytes, *, api_key: str = "") -> bytes:
    """A whole request for chat completions."""
    authorization = f"Authorization: Bearer {api_key}\r\n" if api_key else ""
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUser-Agent: bench\r\nAccept: */*\r\n"
        f"{authorization}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class Load:
    """Connections that each send the next request when the last has been answered."""

    def __init__(self, port: int, request: bytes, shape: Shape) -> None:
        self.port, self.request, self.shape = port, request, shape
        self.counts = Counts()
        self.running = True
        self._connections: set[_Connection] = set()

    async def open(self) -> None:
        """Open every connection and begin."""
        kind = _Whole if self.shape.chunks is None else _Stream
        for left in range(self.shape.connections, 0, -_AT_ONCE):
            await asyncio.gather(*(self._connect(kind) for _ in range(min(left, _AT_ONCE))))

    async def _connect(self, kind: type[_Connection]) -> None:
        await asyncio.get_running_loop().create_connection(lambda: kind(self), "127.0.0.1", self.port)

    def joined(self, connection: _Connection) -> None:
        self._connections.add(connection)

    def lost(self, connection: _Connection) -> None:
        """A gateway may close a connection between answers; within one it is a failure. A new one takes its place."""
        self._connections.discard(connection)
        self.counts.failed += not connection.idle
        if self.running:
            asyncio.get_running_loop().create_task(self._connect(type(connection)))

    async def finish(self, bound_s: float) -> None:
        """Send no more, wait for what is under way, close."""
        self.running = False
        for _ in range(round(bound_s / 0.02)):  # looked at now and then: an event would cost every answer a check
            if all(connection.idle for connection in self._connections):
                break
            await asyncio.sleep(0.02)
        for connection in self._connections:
            connection.transport.abort()


class _Connection(asyncio.Protocol):
    transport: asyncio.Transport

    def __init__(self, load: Load) -> None:
        self.load = load
        self.idle = True
        self.sent_ns = 0
        self.buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.load.joined(self)
        self.send()

    def connection_lost(self, exc: Exception | None) -> None:
        self.load.lost(self)

    def send(self) -> None:
        if not self.load.running:
            self.idle = True
            return
        self.idle = False
        self.buffer = b""
        self.sent_ns = time.perf_counter_ns()
        self.transport.write(self.load.request)

    def answered(self, *, well: bool) -> None:
        self.load.counts.requests += 1
        self.load.counts.failed += not well
        self.send()


class _Whole(_Connection):
    def data_received(self, data: bytes) -> None:
        self.buffer = data = self.buffer + data if self.buffer else data
        end = data.find(b"\r\n\r\n")
        if end < 0 or not _is_whole(data, end):
            return
        counts = self.load.counts
        counts.latencies_ns.append(time.perf_counter_ns() - self.sent_ns)
        self.answered(well=data.startswith(_OK) and b"completion_tokens" in data)


def _is_whole(data: bytes, end: int) -> bool:
    head = data[:end].lower()
    _, found, rest = head.partition(b"content-length:")
    if not found:
        return data.endswith(_END_OF_BODY)
    return len(data) - end - 4 >= int(rest.partition(b"\r\n")[0])


class _Stream(_Connection):
    def __init__(self, load: Load) -> None:
        super().__init__(load)
        self.chunks = 0
        self.begun = False
        self.ok = False
        self.last_ns = 0

    def send(self) -> None:
        self.chunks, self.begun = 0, False
        super().send()

    def data_received(self, data: bytes) -> None:
        if not self.begun:
            data = self.buffer + data
            self.buffer = b""
            if len(data) < len(_OK):
                self.buffer = data
                return
            self.begun, self.ok = True, data.startswith(_OK)
        # The tail is kept so that a mark that two reads share is counted, and none twice.
        text = self.buffer + data
        new = text.count(TOKEN) - self.buffer.count(TOKEN)
        if new:
            self._count(new)
        self.buffer = text[-_TAIL:]
        if self.buffer.endswith(_END_OF_BODY) or (not self.ok and _failed_whole(text)):
            self.answered(well=self.ok and self.chunks == self.load.shape.chunks and _DONE in self.buffer)

    def _count(self, new: int) -> None:
        now, counts = time.perf_counter_ns(), self.load.counts
        if self.chunks == 0:
            counts.latencies_ns.append(now - self.sent_ns)
        else:
            counts.gaps_ns.append(now - self.last_ns)
        self.last_ns = now
        self.chunks += new
        counts.chunks += new


def _failed_whole(text: bytes) -> bool:
    end = text.find(b"\r\n\r\n")
    return end >= 0 and _is_whole(text, end)
