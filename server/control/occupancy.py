"""Which engines still have requests of some worker, as the workers tell with each batch."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from server.wire import Batch, Hello, Snapshot

__all__ = ["Occupancy"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Heard:
    table: int
    in_flight: Mapping[str, int]


class Occupancy:
    """Fed by the bus; knows when an engine that the routing table no longer offers has become idle."""

    def __init__(self) -> None:
        self._workers: dict[str, _Heard] = {}
        """By boot."""
        self._closed: dict[str, int] = {}
        """By engine: the first of the newest tables in a row that do not offer it."""
        self._known: frozenset[str] = frozenset()
        self._table = 0
        self._changed = asyncio.Event()

    def published(self, table: Snapshot) -> None:
        """This table is on its way to every worker."""
        offered = {name for name, replica in table.replicas.items() if replica.healthy}
        self._known |= offered
        closed = {name: self._closed.get(name, table.version) for name in self._known - offered}
        self._closed, self._table = closed, table.version
        self._wake()

    def joined(self, worker: Hello) -> None:
        """A worker has connected; nothing is known of it yet."""
        self._workers[worker.boot] = _Heard(table=0, in_flight={})

    def left(self, worker: Hello) -> None:
        """It has gone, and its requests with it."""
        self._workers.pop(worker.boot, None)
        self._wake()

    def take(self, batch: Batch, worker: Hello) -> None:
        """What it says of itself."""
        self._workers[worker.boot] = _Heard(table=batch.gauges.table, in_flight=batch.gauges.in_flight)
        self._wake()

    async def wait_idle(self, engine: str) -> None:
        """Until no worker can send it anything more, and none waits for it. Unbounded: bound it."""
        while not self._is_idle(engine):
            await self._changed.wait()

    def _is_idle(self, engine: str) -> bool:
        if engine not in self._known:
            return True
        closed_at = self._closed.get(engine)
        return closed_at is not None and all(
            heard.table >= closed_at and not heard.in_flight.get(engine) for heard in self._workers.values()
        )

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
