"""A client on a raw socket: sends exactly these bytes, reads whatever comes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

__all__ = ["Answer", "Wire", "connect"]


@dataclass(frozen=True, slots=True)
class Answer:
    """What was read: all of it, and whether the gateway closed the connection."""

    raw: bytes
    closed: bool

    @property
    def status(self) -> int | None:
        """Status of the first answer; None: there is none."""
        words = self.raw.split(b" ", 2)
        return int(words[1]) if self.raw.startswith(b"HTTP/1.") and len(words) > 2 else None

    @property
    def headers(self) -> dict[str, str]:
        """Headers of the first answer, names in lower case."""
        lines = self.raw.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")[1:]
        return {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}

    @property
    def body(self) -> bytes:
        """What follows the first head, as it came."""
        return self.raw.partition(b"\r\n\r\n")[2]

    @property
    def error(self) -> Any:
        """The error object of an answer in OpenAI's form, else None."""
        with suppress(ValueError):
            content = json.loads(self.body)
            return content.get("error") if isinstance(content, dict) else None
        return None

    @property
    def shown(self) -> str:
        """The status, or what there was instead."""
        return str(self.status) if self.status else "closed" if self.closed else "no answer"


class Wire:
    """One connection to the gateway."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self.writer = reader, writer
        self._raw = b""
        self.closed = False

    async def send(self, data: bytes, bound_s: float = 5.0) -> bool:
        """Write; False if the gateway has closed or reads no more."""
        with suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(bound_s):
                self.writer.write(data)
                await self.writer.drain()
                return True
        return False

    async def read(self, until: Callable[[bytes], bool], bound_s: float = 5.0) -> Answer:
        """Read until the condition holds, the gateway closes, or time is up."""
        with suppress(TimeoutError):
            async with asyncio.timeout(bound_s):
                while not until(self._raw) and not self.closed:
                    await self._read_once()
        return Answer(self._raw, self.closed)

    async def _read_once(self) -> None:
        try:
            data = await self._reader.read(1 << 16)
        except ConnectionError:
            data = b""
        self.closed = not data
        self._raw += data

    async def whole(self, bound_s: float = 5.0) -> Answer:
        """Read one answer to its end."""
        return await self.read(_is_whole, bound_s)

    def close(self) -> None:
        """Go as a client that has had enough: in order."""
        self.writer.close()


def _is_whole(raw: bytes) -> bool:
    start, found, rest = raw.partition(b"\r\n\r\n")
    if not found:
        return False
    fields = start.lower()
    if b"transfer-encoding: chunked" in fields:
        return rest.endswith(b"0\r\n\r\n")
    _, found, length = fields.partition(b"content-length:")
    return len(rest) >= int(length.partition(b"\r\n")[0]) if found else False


@asynccontextmanager
async def connect(port: int) -> AsyncIterator[Wire]:
    """A connection, closed at the block's end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    wire = Wire(reader, writer)
    try:
        yield wire
    finally:
        if writer.transport.get_write_buffer_size():  # a gateway that reads no more would hold us here
            writer.transport.abort()
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
