"""An engine is idle once no worker can reach it and none waits for it."""

from __future__ import annotations

import asyncio

import pytest

from server.control.occupancy import Occupancy
from server.wire import Hello, ReplicaAddress, Snapshot
from tests.fakes.batches import batch, worker

pytestmark = pytest.mark.anyio


def table(version: int, *offered: str, down: tuple[str, ...] = ()) -> Snapshot:
    replicas = {
        name: ReplicaAddress(
            name=name,
            host="h",
            port=1,
            tls=False,
            path_prefix="",
            api_key=None,
            healthy=name not in down,
            rewrite_model=False,
        )
        for name in (*offered, *down)
    }
    return Snapshot(version=version, replicas=replicas, routes={})


class Watched:
    """Somebody waits for the engine `a`."""

    def __init__(self) -> None:
        self.occupancy = Occupancy()
        self.seq = 0

    def tells(self, one: Hello, *, table: int, running: int = 0) -> None:
        self.seq += 1
        self.occupancy.take(batch(seq=self.seq, table=table, in_flight={"a": running} if running else {}), one)

    async def idle(self) -> bool:
        """Whether a wait would be over now."""
        waiting = asyncio.ensure_future(self.occupancy.wait_idle("a"))
        for _ in range(3):
            await asyncio.sleep(0)
        waiting.cancel()
        return waiting.done() and not waiting.cancelled()


async def test_worker_with_an_old_table_or_a_running_request_is_waited_for() -> None:
    watched, one, two = Watched(), worker("one"), worker("two")
    for each in (one, two):
        watched.occupancy.joined(each)
    watched.occupancy.published(table(7, "a", "b"))
    watched.tells(one, table=7, running=2)
    assert not await watched.idle()
    watched.occupancy.published(table(8, "b", down=("a",)))
    watched.occupancy.published(table(9, "b"))
    watched.tells(one, table=7)
    assert not await watched.idle()  # it may still send one there
    watched.tells(one, table=8, running=1)
    assert not await watched.idle()
    watched.tells(one, table=9)
    assert not await watched.idle()  # nothing is known of the other
    watched.tells(two, table=8)
    assert await watched.idle()


async def test_worker_that_goes_is_not_waited_for() -> None:
    watched, one = Watched(), worker("one")
    watched.occupancy.joined(one)
    watched.occupancy.published(table(1, "a"))
    watched.tells(one, table=1, running=1)
    watched.occupancy.published(table(2, down=("a",)))
    waiting = asyncio.ensure_future(watched.occupancy.wait_idle("a"))
    watched.occupancy.left(one)
    async with asyncio.timeout(5):
        await waiting


async def test_engine_that_comes_back_is_not_idle() -> None:
    watched = Watched()
    watched.occupancy.published(table(1, "a"))
    watched.occupancy.published(table(2, down=("a",)))
    assert await watched.idle()
    watched.occupancy.published(table(3, "a"))
    assert not await watched.idle()


async def test_engine_that_was_never_offered_is_idle() -> None:
    watched = Watched()
    watched.occupancy.joined(worker("one"))
    assert await watched.idle()
