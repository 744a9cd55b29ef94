"""An engine for the soak, at random paces: `python -m tests.benchmarks.soak_engine PORT`."""

from __future__ import annotations

import asyncio
import json
import random
import sys
from typing import ClassVar, cast

from tests.fakes.scripted_engine import DONE, SSE, chunked, head, role, token, usage

__all__ = ["main"]

_MODELS = b'{"object":"list","data":[{"id":"demo","object":"model","created":1,"owned_by":"soak"}]}'
_PADDING = "x" * 300


class _Connection(asyncio.Protocol):
    """One connection of the gateway, and the answer that runs on it."""

    running: ClassVar[set[asyncio.Task[None]]] = set()
    """Answers under way, of all connections."""

    def __init__(self) -> None:
        self.buffer = b""
        self.task: asyncio.Task[None] | None = None
        self.may_write = asyncio.Event()
        self.may_write.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.task is not None:
            self.task.cancel()

    def pause_writing(self) -> None:
        self.may_write.clear()

    def resume_writing(self) -> None:
        self.may_write.set()

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        start, found, rest = self.buffer.partition(b"\r\n\r\n")
        fields = dict(line.lower().split(b":", 1) for line in start.split(b"\r\n")[1:])
        length = int(fields.get(b"content-length", b"0"))
        if not found or len(rest) < length:
            return
        self.buffer = rest[length:]
        if not start.startswith(b"POST"):
            body = b"%d" % len(self.running) if start.startswith(b"GET /running") else _MODELS
            self._whole(body)
            return
        self.task = asyncio.get_running_loop().create_task(self._answer(json.loads(rest[:length])))
        self.running.add(self.task)
        self.task.add_done_callback(self.running.discard)

    def _whole(self, body: bytes, status: int = 200) -> None:
        kind = (b"content-type", b"application/json")
        self.transport.write(head(status, kind, (b"content-length", b"%d" % len(body))) + body)

    async def _answer(self, request: dict[str, object]) -> None:
        await asyncio.sleep(random.expovariate(50))
        if not request.get("stream"):
            counts = b'"usage":{"prompt_tokens":9,"completion_tokens":3,"total_tokens":12}'
            self._whole(b'{"id":"c-1","object":"chat.completion","model":"demo","choices":[],' + counts + b"}")
            return
        chunks = int(cast("int", request.get("max_tokens", 16)))
        stream_head = head(200, (b"content-type", SSE), (b"transfer-encoding", b"chunked"))
        self.transport.write(stream_head + chunked(role(model="demo")))
        text = " tok" + (_PADDING if chunks > 500 else "")
        for _ in range(chunks):
            await asyncio.sleep(0 if chunks > 500 else random.expovariate(200))
            await self.may_write.wait()
            self.transport.write(chunked(token(text, model="demo")))
        events = [token("", model="demo", finish="stop"), usage(9, chunks, model="demo"), DONE]
        self.transport.write(b"".join(chunked(event) for event in events) + chunked(b""))


async def main() -> None:
    """Serve until killed."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Connection, "127.0.0.1", int(sys.argv[1]), backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
