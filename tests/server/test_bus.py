"""The control plane's end of the bus, spoken to over a real Unix socket."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from server.control.bus import Bus
from server.wire import (
    LENGTH_BYTES,
    PROTOCOL_VERSION,
    Ack,
    Batch,
    Hello,
    Snapshot,
    ToWorker,
    WorkerGauges,
    decode_to_worker,
    encode,
    frame_length,
)

pytestmark = pytest.mark.anyio

HELLO = Hello(version=PROTOCOL_VERSION, slot=0, pid=1, boot="one")
EMPTY = Snapshot(version=1, replicas={}, routes={})
BOUND_S = 10.0


def batch(seq: int) -> Batch:
    gauges = WorkerGauges(in_flight={}, queued=0, loop_lag_s=0.0, records_dropped=0, rejections={}, retries={})
    return Batch(seq=seq, at=0.0, records=[], tokens=[], gauges=gauges)


class Ears:
    """What the control plane hears."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "bus.sock"
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(str(self.path))
        self.listener.listen()
        self.batches: list[int] = []
        self.present: set[str] = set()
        self.changed = asyncio.Event()
        self.bus = Bus(
            self.listener,
            take=lambda taken, _: self.batches.append(taken.seq),
            joined=lambda hello: self.present.add(hello.boot),
            left=self._left,
        )

    def _left(self, hello: Hello) -> None:
        self.present.discard(hello.boot)
        self.changed.set()


@pytest.fixture
async def ears(tmp_path: Path) -> AsyncIterator[Ears]:
    heard = Ears(tmp_path)
    serving = asyncio.create_task(heard.bus.serve())
    yield heard
    serving.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await serving
    heard.listener.close()


class Worker:
    """A worker's end, by hand."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, message: Hello | Batch) -> None:
        self.writer.write(encode(message))

    async def hears(self) -> ToWorker:
        async with asyncio.timeout(BOUND_S):
            length = frame_length(await self.reader.readexactly(LENGTH_BYTES))
            return decode_to_worker(await self.reader.readexactly(length))

    async def close(self) -> None:
        self.writer.close()
        await self.writer.wait_closed()


@contextlib.asynccontextmanager
async def worker(ears: Ears, hello: Hello = HELLO) -> AsyncIterator[Worker]:
    connected = Worker(*await asyncio.open_unix_connection(ears.path))
    connected.send(hello)
    yield connected
    await connected.close()


async def test_worker_gets_the_newest_snapshot_when_it_connects_and_every_one_after(ears: Ears) -> None:
    ears.bus.publish(EMPTY)
    async with worker(ears) as connected:
        assert await connected.hears() == EMPTY
        newer = Snapshot(version=2, replicas={}, routes={})
        ears.bus.publish(newer)
        assert await connected.hears() == newer


async def test_batch_is_taken_before_it_is_acknowledged(ears: Ears) -> None:
    async with worker(ears) as connected:
        for seq in (1, 2, 3):
            connected.send(batch(seq))
        assert [await connected.hears() for _ in range(3)] == [Ack(seq=1), Ack(seq=2), Ack(seq=3)]
        assert ears.batches == [1, 2, 3]


async def test_worker_that_goes_is_noticed(ears: Ears) -> None:
    async with worker(ears) as connected:
        connected.send(batch(1))
        await connected.hears()
        assert ears.present == {"one"}
    async with asyncio.timeout(BOUND_S):
        await ears.changed.wait()
    assert ears.present == set()


async def test_worker_of_another_version_is_sent_away(ears: Ears, caplog: pytest.LogCaptureFixture) -> None:
    async with worker(ears, Hello(version=99, slot=0, pid=1, boot="old")) as connected, asyncio.timeout(BOUND_S):
        assert await connected.reader.read() == b""
    assert "version 99" in caplog.text
    assert ears.present == set()


async def test_nonsense_closes_one_connection_and_not_the_bus(ears: Ears) -> None:
    reader, writer = await asyncio.open_unix_connection(ears.path)
    writer.write(b"\x05\x00\x00\x00hello")
    async with asyncio.timeout(BOUND_S):
        assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()
    async with worker(ears) as connected:
        connected.send(batch(1))
        assert await connected.hears() == Ack(seq=1)
