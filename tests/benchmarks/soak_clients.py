"""The soak's clients: patient ones, slow ones, and those that leave at any time."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from contextlib import suppress
from typing import Any, Final

__all__ = ["Clients"]

_END: Final = b"\r\n0\r\n\r\n"
_BOUND_S: Final = 60.0
_GONE_S: Final = 2.0
_BURST: Final = 60
_KINDS: Final = {
    "whole": 8,
    "stream": 8,
    "leaves before headers": 3,
    "leaves whole answer": 3,
    "leaves mid-stream": 4,
    "half a request": 1,
    "slow reader": 1,
    "no such model": 1,
    "bad JSON": 1,
}


class Clients:
    """So many clients that ask one thing after another until they are stopped."""

    def __init__(self, port: int, count: int) -> None:
        self.port, self.count = port, count
        self.sent: Counter[str] = Counter()
        """Requests by kind; half ones too, for their heads were whole."""
        self.seen: Counter[str] = Counter()
        """What came back: statuses, and `broken` for an answer that ended early without saying so."""
        self.stopping = asyncio.Event()

    async def run(self) -> None:
        """Work until `stopping` is set and the last request has ended."""
        async with asyncio.TaskGroup() as tasks:
            for _ in range(self.count):
                tasks.create_task(self._client())
            tasks.create_task(self._bursts())

    async def _client(self) -> None:
        while not self.stopping.is_set():
            await self._ask(random.choices(list(_KINDS), list(_KINDS.values()))[0])
            await asyncio.sleep(random.expovariate(20))

    async def _bursts(self) -> None:
        while not self.stopping.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self.stopping.wait(), random.uniform(3, 10))
            if not self.stopping.is_set():
                await asyncio.gather(*(self._ask(random.choice(["whole", "stream"])) for _ in range(_BURST)))

    async def _ask(self, kind: str) -> None:
        writer: asyncio.StreamWriter | None = None
        try:
            async with asyncio.timeout(_BOUND_S):
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 14)
                await self._converse(kind, reader, writer)
        except (OSError, TimeoutError) as exc:
            self.seen[f"{type(exc).__name__} ({kind})"] += 1
        finally:
            if writer is not None:
                writer.close()

    async def _converse(self, kind: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = _request(kind)
        if kind == "half a request":
            writer.write(request[:-10])
            self.sent[kind] += 1
            await asyncio.sleep(random.uniform(0.05, 0.2))
            return
        writer.write(request)
        await writer.drain()
        self.sent[kind] += 1
        if kind.startswith("leaves"):
            await self._leave(kind, reader)
        else:
            self.seen[await _read(reader, slow=kind == "slow reader")] += 1

    async def _leave(self, kind: str, reader: asyncio.StreamReader) -> None:
        if kind == "leaves mid-stream":
            for _ in range(random.randint(1, 5)):
                with suppress(TimeoutError):  # the answer was shorter than that, and the connection is kept
                    await asyncio.wait_for(reader.read(1 << 12), _GONE_S)
        else:
            await asyncio.sleep(random.uniform(0.001, 0.03))
        self.seen["left"] += 1


def _request(kind: str) -> bytes:
    content: dict[str, Any] = {"model": "demo", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 16}
    if kind in {"stream", "leaves mid-stream", "leaves before headers", "slow reader"}:
        content |= {"stream": True, "max_tokens": 2000 if kind == "slow reader" else random.randint(1, 64)}
    if kind == "no such model":
        content["model"] = "no-such-model"
    body = json.dumps(content).encode()[: -2 if kind == "bad JSON" else None]
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    return head + b"Content-Length: %d\r\n\r\n" % len(body) + body


async def _read(reader: asyncio.StreamReader, *, slow: bool) -> str:
    """Read an answer to its end; its status, or how it broke."""
    head = await reader.readuntil(b"\r\n\r\n") if not reader.at_eof() else b""
    if b"content-length" in head.lower():
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        await reader.readexactly(length)
        return head[9:12].decode()
    tail, told = b"", False
    while not tail.endswith(_END):
        data = await reader.read(1 << 12 if slow else 1 << 16)
        if not data:
            return "error event" if told else "broken"
        tail = tail[-64:] + data
        told = told or b'"error"' in tail
        if slow:
            await asyncio.sleep(0.01)
    return "error event" if told else head[9:12].decode() if b"[DONE]" in tail else "broken"
