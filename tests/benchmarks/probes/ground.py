"""What every probe stands on: a gateway, the engine behind it, and what a cell says."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from tests.benchmarks.probes.engine import Exchange, ProbeEngine, Script, answer
from tests.benchmarks.probes.wire import Answer, Wire, connect
from tests.benchmarks.targets import Target

__all__ = ["PATH", "Cell", "Ground", "Probe", "right_if"]

PATH: Final = "/v1/chat/completions"


@dataclass(frozen=True, slots=True)
class Cell:
    """Whether a gateway did right, and what was seen."""

    right: bool
    note: str


def right_if(right: bool, note: str) -> Cell:
    """A cell by its condition."""
    return Cell(right, note)


@dataclass(frozen=True, slots=True)
class Ground:
    """One gateway under probe."""

    target: Target
    engine: ProbeEngine

    def head(self, *headers: str, length: int | None = None, method: str = "POST", path: str = PATH) -> bytes:
        """A request's head; without `length` it has no content-length."""
        lines = [f"{method} {path} HTTP/1.1", f"Host: 127.0.0.1:{self.target.port}", "Content-Type: application/json"]
        if self.target.api_key:
            lines.append(f"Authorization: Bearer {self.target.api_key}")
        lines += headers
        if length is not None:
            lines.append(f"Content-Length: {length}")
        return ("\r\n".join(lines) + "\r\n\r\n").encode()

    def request(self, body: bytes, *headers: str) -> bytes:
        """A whole request."""
        return self.head(*headers, length=len(body)) + body

    def chat(self, *, stream: bool = False, **more: Any) -> bytes:
        """A chat request's body."""
        content = {"model": "demo", "messages": [{"role": "user", "content": "Hi"}], "stream": stream, **more}
        return json.dumps(content).encode()

    def wire(self) -> Any:
        """A new connection to the gateway."""
        return connect(self.target.port)

    async def ask(self, body: bytes, *headers: str, script: Script | None = None, bound_s: float = 10.0) -> Answer:
        """One request on a connection of its own, and its whole answer."""
        self.engine.begin(script or answer())
        async with self.wire() as wire:
            await wire.send(self.request(body, *headers))
            return await wire.whole(bound_s)  # type: ignore[no-any-return]

    async def ask_raw(self, data: bytes, *, bound_s: float = 3.0) -> Answer:
        """These bytes on a connection of their own, and what comes back until it is whole or time is up."""
        self.engine.begin(answer())
        async with self.wire() as wire:
            await wire.send(data)
            return await wire.whole(bound_s)  # type: ignore[no-any-return]

    @asynccontextmanager
    async def under_way(self, script: Script, *, stream: bool) -> AsyncIterator[tuple[Wire, Exchange]]:
        """A request that has reached the engine."""
        self.engine.begin(script)
        async with self.wire() as wire:
            await wire.send(self.request(self.chat(stream=stream)))
            yield wire, await self.engine.exchange()


Probe = Callable[[Ground], Awaitable[Cell]]
