"""The control plane's end of the bus, spoken to over a real Unix socket."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from server.control.bus import Bus
from server.units import Seconds
from server.wire import (
    LENGTH_BYTES,
    PROTOCOL_VERSION,
    Ack,
    Amounts,
    Batch,
    Hello,
    Lease,
    LeaseWanted,
    Snapshot,
    ToWorker,
    decode_to_worker,
    encode,
    frame_length,
)
from tests.fakes.batches import batch

pytestmark = pytest.mark.anyio

HELLO = Hello(version=PROTOCOL_VERSION, slot=0, pid=1, boot="one")
EMPTY = Snapshot(version=1, replicas={}, routes={})
BOUND_S = 10.0


class Ears:
    """What the control plane hears."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "bus.sock"
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(str(self.path))
        self.listener.listen()
        self.batches: list[int] = []
        self.wishes: list[LeaseWanted] = []
        self.present: set[str] = set()
        self.changed = asyncio.Event()
        self.holds = True
        """False: `bus.acknowledge` is to follow."""
        self.took = asyncio.Event()
        self.bus = Bus(
            self.listener,
            take=self._take,
            joined=lambda hello: self.present.add(hello.boot),
            left=self._left,
            lease_wanted=self._wanted,
        )

    def _take(self, taken: Batch, _: Hello) -> bool:
        self.batches.append(taken.seq)
        self.took.set()
        return self.holds

    async def until_taken(self, *seqs: int) -> None:
        async with asyncio.timeout(BOUND_S):
            while sorted(self.batches) != list(seqs):
                self.took.clear()
                await self.took.wait()

    def _wanted(self, message: LeaseWanted, hello: Hello) -> None:
        self.wishes.append(message)
        self.bus.tell(hello, Lease(key=message.key, granted=message.most, left=Amounts()))

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

    def send(self, message: Hello | Batch | LeaseWanted) -> None:
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


async def test_hand_over_gives_every_acknowledgement_and_takes_nothing_more(ears: Ears) -> None:
    async with worker(ears) as connected:
        connected.send(batch(1))
        assert await connected.hears() == Ack(seq=1)
        connected.send(batch(2))
        over = asyncio.create_task(ears.bus.hand_over(Seconds(BOUND_S)))
        heard = []
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                heard.append(await connected.hears())
        connected.send(batch(3))
        assert not over.done()
    await over
    assert heard == [Ack(seq=seq) for seq in ears.batches[1:]]
    assert 3 not in ears.batches
    assert ears.path.exists()


async def test_hand_over_does_not_wait_for_ever(ears: Ears) -> None:
    async with worker(ears) as connected:
        connected.send(batch(1))
        await connected.hears()
        await ears.bus.hand_over(Seconds(0.01))


async def test_worker_that_comes_during_a_hand_over_waits_for_the_next_control_plane(ears: Ears) -> None:
    listener = ears.listener.dup()  # as the launcher has it
    await ears.bus.hand_over(Seconds(0))
    async with worker(ears, Hello(version=PROTOCOL_VERSION, slot=1, pid=2, boot="late")) as late:
        late.send(batch(1))
        heard: list[int] = []
        following = Bus(
            listener,
            take=lambda taken, _: heard.append(taken.seq),
            joined=lambda _: None,
            left=lambda _: None,
            lease_wanted=lambda *_: None,
        )
        serving = asyncio.create_task(following.serve())
        assert await late.hears() == Ack(seq=1)
        serving.cancel()
    assert heard == [1]
    assert ears.batches == []


async def test_worker_that_asks_for_a_lease_is_answered_and_no_other(ears: Ears) -> None:
    async with worker(ears) as one, worker(ears, Hello(version=PROTOCOL_VERSION, slot=1, pid=2, boot="two")) as other:
        other.send(batch(1))
        assert await other.hears() == Ack(seq=1)
        one.send(LeaseWanted(key="key-1", most=Amounts(requests=5), back=Amounts(tokens=-7)))
        assert await one.hears() == Lease(key="key-1", granted=Amounts(requests=5), left=Amounts())
        assert ears.wishes == [LeaseWanted(key="key-1", most=Amounts(requests=5), back=Amounts(tokens=-7))]
        other.send(batch(2))
        assert await other.hears() == Ack(seq=2)


async def test_batch_that_is_not_held_yet_is_acknowledged_when_somebody_says_so(ears: Ears) -> None:
    ears.holds = False
    async with worker(ears) as connected:
        for seq in (1, 2, 3):
            connected.send(batch(seq))
        await ears.until_taken(1, 2, 3)
        ears.bus.acknowledge(HELLO, 2)
        ears.bus.publish(EMPTY)
        assert [await connected.hears() for _ in range(2)] == [Ack(seq=2), EMPTY]
        ears.bus.acknowledge(HELLO, 3)
        assert await connected.hears() == Ack(seq=3)


async def test_late_acknowledgement_finds_the_worker_on_its_new_connection(ears: Ears) -> None:
    ears.holds = False
    async with worker(ears) as connected:
        connected.send(batch(1))
        await ears.until_taken(1)
    async with worker(ears) as again, worker(ears, Hello(version=PROTOCOL_VERSION, slot=1, pid=2, boot="two")) as other:
        again.send(batch(2))
        other.send(batch(3))
        await ears.until_taken(1, 2, 3)
        ears.bus.acknowledge(HELLO, 2)
        assert await again.hears() == Ack(seq=2)


async def test_acknowledgement_of_a_worker_that_has_gone_is_nobodys(ears: Ears) -> None:
    ears.bus.acknowledge(HELLO, 1)
    async with worker(ears) as connected:
        connected.send(batch(1))
        assert await connected.hears() == Ack(seq=1)


async def test_hand_over_in_two_halves_leaves_time_for_acknowledgements(ears: Ears) -> None:
    ears.holds = False
    async with worker(ears) as connected:
        connected.send(batch(1))
        await ears.until_taken(1)
        ears.bus.take_no_more()
        connected.send(batch(2))
        ears.bus.acknowledge(HELLO, 1)
        assert await connected.hears() == Ack(seq=1)
        over = asyncio.create_task(ears.bus.hand_over(Seconds(BOUND_S)))
        with pytest.raises(asyncio.IncompleteReadError):
            await connected.hears()
        ears.bus.acknowledge(HELLO, 2)  # too late, and no error
    await over
    assert ears.batches == [1]
