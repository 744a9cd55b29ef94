"""A client that writes bytes as a test says and reads answers one by one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from tests.gateway.house import House

__all__ = ["CHAT", "Answer", "Wire", "chat", "dialled", "post"]

BOUND_S = 10.0
CHAT = b'{"model":"demo:bf16","messages":[{"role":"user","content":"Hi"}]}'


def post(
    *headers: bytes,
    body: bytes = CHAT,
    target: bytes = b"/v1/chat/completions",
    host: bytes = b"localhost",
    method: bytes = b"POST",
) -> bytes:
    """A request with an announced body."""
    lines = [b"%b %b HTTP/1.1" % (method, target), b"host: " + host, *headers, b"content-length: %d" % len(body)]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def chat(**changes: Any) -> bytes:
    """A chat request with these members."""
    return post(body=json.dumps({**json.loads(CHAT), **changes}).encode())


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One answer as it was read."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> dict[str, Any]:
        """The error that it must hold, in OpenAI's form."""
        return dict(json.loads(self.body)["error"])


class Wire:
    """One bare connection to the gateway."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, *data: bytes) -> None:
        """Write in one piece."""
        self.writer.write(b"".join(data))

    async def ask(self, data: bytes) -> Answer:
        """Write, and read one answer."""
        self.send(data)
        return await self.answer()

    async def answer(self, *, bodiless: bool = False) -> Answer:
        """The next answer. Raises `IncompleteReadError` if the connection ends before it does."""
        async with asyncio.timeout(BOUND_S):
            head = await self.reader.readuntil(b"\r\n\r\n")
            status_line, *lines = head.decode("latin-1").rstrip().split("\r\n")
            pairs = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
            headers = dict(pairs)
            assert len(headers) == len(pairs), "a header stands twice in an answer"
            status = int(status_line.split()[1])
            body = b"" if bodiless or status < 200 else await self._body(headers)
        return Answer(status=status, headers=headers, body=body)

    async def _body(self, headers: dict[str, str]) -> bytes:
        if "content-length" in headers:
            return await self.reader.readexactly(int(headers["content-length"]))
        if headers.get("transfer-encoding") != "chunked":
            return await self.reader.read()
        parts = []
        while size := int(await self.reader.readline(), 16):
            parts.append(await self.reader.readexactly(size))
            assert await self.reader.readexactly(2) == b"\r\n"
        assert await self.reader.readexactly(2) == b"\r\n"
        return b"".join(parts)

    async def closed(self) -> bool:
        """True once the gateway has closed the connection; False if it sent something instead."""
        async with asyncio.timeout(BOUND_S):
            try:
                return await self.reader.read(1) == b""
            except ConnectionError:
                return True


@asynccontextmanager
async def dialled(house: House) -> AsyncIterator[Wire]:
    """A connection that is closed afterwards."""
    reader, writer = await house.dial()
    try:
        yield Wire(reader, writer)
    finally:
        writer.transport.abort()
