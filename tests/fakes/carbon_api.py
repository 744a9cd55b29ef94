"""An HTTP server that tells carbon intensities, as a test scripts them."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

__all__ = ["CarbonApi", "raw"]


def raw(body: bytes, status: int = 200) -> bytes:
    """A whole answer."""
    head = f"HTTP/1.1 {status} Said\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
    return head.encode() + b"connection: close\r\n\r\n" + body


class CarbonApi:
    """Answers in the order of the script, then always with the last of it; None: never answers."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        """Heads, as they came."""
        self._answers: deque[bytes | None] = deque()
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def then(self, *answers: Any) -> None:
        """Bytes are sent as they are, None is silence, everything else is sent as JSON."""
        for answer in answers:
            known = answer is None or isinstance(answer, bytes)
            self._answers.append(answer if known else raw(json.dumps(answer).encode()))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[CarbonApi]:
        self._server = await asyncio.start_server(self._talk, "127.0.0.1", 0)
        try:
            yield self
        finally:
            self._server.close()
            for writer in self._open:
                writer.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            self.requests.append(head.decode())
            answer = self._answers.popleft() if len(self._answers) > 1 else self._answers[0]
            if answer is None:
                await reader.read()  # until the client gives up
            else:
                writer.write(answer)
                await writer.drain()
        except (OSError, EOFError):
            pass
        finally:
            writer.close()
            self._open.discard(writer)
