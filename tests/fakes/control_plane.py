"""A control plane that only speaks the bus: pushes snapshots, leases limits, collects batches, acknowledges or not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from server.clock import SystemClock
from server.control.limits import Leases
from server.wire import (
    LENGTH_BYTES,
    Ack,
    Batch,
    Hello,
    LeaseWanted,
    RequestRecord,
    Snapshot,
    ToWorker,
    decode_to_control,
    encode,
    frame_length,
)

__all__ = ["FakeControlPlane"]


class FakeControlPlane:
    """Listens on the bus's socket; sends the last snapshot to every worker that says hello."""

    def __init__(self, path: Path, *, acknowledges: bool = True) -> None:
        self._path = path
        self._writers: set[asyncio.StreamWriter] = set()
        self._changed = asyncio.Condition()
        self.acknowledges = acknowledges
        self.snapshot: Snapshot | None = None
        self.hellos: list[Hello] = []
        self.batches: list[Batch] = []
        self._leases = Leases(SystemClock(), self._tell)
        self._by_hello: dict[int, asyncio.StreamWriter] = {}

    @property
    def records(self) -> list[RequestRecord]:
        """All records received, repeated ones as often as they came."""
        return [record for batch in self.batches for record in batch.records]

    def push(self, message: ToWorker) -> None:
        """Send to every worker; a snapshot is kept for those that come later."""
        if isinstance(message, Snapshot):
            self.snapshot = message
            self._leases.replace((message.keys or {}).values())
        self.say(encode(message))

    def say(self, data: bytes) -> None:
        """Send these bytes to every worker, whatever they are."""
        for writer in self._writers:
            writer.write(data)

    def hang_up(self) -> None:
        """Break every connection."""
        for writer in self._writers:
            writer.transport.abort()

    async def until(self, true: Callable[[], bool]) -> None:
        """Wait until something that workers said makes it true."""
        async with asyncio.timeout(10), self._changed:
            await self._changed.wait_for(true)

    async def record(self, number: int = 1) -> RequestRecord:
        """The n-th record, once it is there."""
        await self.until(lambda: len(self.records) >= number)
        return self.records[number - 1]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[FakeControlPlane]:
        """Listen while the block runs; leaving it is a control plane's death."""
        self._path.unlink(missing_ok=True)
        server = await asyncio.start_unix_server(self._talk, self._path)
        try:
            yield self
        finally:
            server.close()
            self.hang_up()
            async with asyncio.timeout(5), self._changed:
                await self._changed.wait_for(lambda: not self._writers)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while True:
                length = frame_length(await reader.readexactly(LENGTH_BYTES))
                message = decode_to_control(await reader.readexactly(length))
                self._take(message, writer)
                async with self._changed:
                    self._changed.notify_all()
        except (OSError, EOFError):
            pass
        finally:
            writer.close()
            self._writers.discard(writer)
            async with self._changed:
                self._changed.notify_all()

    def _tell(self, hello: Hello, message: ToWorker) -> None:
        self._by_hello[id(hello)].write(encode(message))

    def _take(self, message: Hello | Batch | LeaseWanted, writer: asyncio.StreamWriter) -> None:
        if isinstance(message, LeaseWanted):
            hello = next(hello for hello in self.hellos if self._by_hello[id(hello)] is writer)
            self._leases.wanted(message, hello)
            return
        if isinstance(message, Hello):
            self.hellos.append(message)
            self._by_hello[id(message)] = writer
            self._leases.joined(message)
            if self.snapshot is not None:
                writer.write(encode(self.snapshot))
            return
        self.batches.append(message)
        if self.acknowledges:
            writer.write(encode(Ack(seq=message.seq)))
