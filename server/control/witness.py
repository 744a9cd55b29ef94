"""What all workers saw at each replica: attempts, requests that run there, and whether anything comes of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from server.clock import Clock
from server.units import Seconds
from server.wire import Batch, Hello, ReplicaSeen

__all__ = ["Witness", "Witnesses"]

_STALE: Final = Seconds(5.0)
"""A batch that is older was kept while no control plane was there: it says nothing of now."""


class Witness:
    """Of one replica.

    `stalled_for` is the hang rule's clock (`hang.py`): it runs while at least one request is there, and begins anew
    whenever a token or the end of an answer comes. It does not begin anew when requests are given up: clients that try
    again and again at an engine that hangs must not hide it.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._in_flight: dict[str, int] = {}
        """By worker's life."""
        self._stalled = 0.0
        self._updated = clock.monotonic()
        self.signs = 0
        """Of progress, so far."""
        self.on_seen: Callable[[ReplicaSeen], None] | None = None
        """Who wants to know at once; None while nobody watches."""

    @property
    def stalled_for(self) -> Seconds:
        """How long requests have been there in all since the last sign of progress."""
        self._pass_time()
        return Seconds(self._stalled)

    @property
    def in_flight(self) -> int:
        """Requests that are there, over all workers."""
        return sum(self._in_flight.values())

    def progressed(self) -> None:
        """Something came of a request there, or the engine's own counters moved."""
        self._pass_time()
        self._stalled = 0.0
        self.signs += 1

    def holds(self, worker: str, in_flight: int) -> None:
        """So many requests of this worker's life are there."""
        self._pass_time()
        if in_flight:
            self._in_flight[worker] = in_flight
        else:
            self._in_flight.pop(worker, None)

    def saw(self, seen: ReplicaSeen) -> None:
        if self.on_seen is not None:
            self.on_seen(seen)

    def _pass_time(self) -> None:
        now = self._clock.monotonic()
        if self._in_flight:
            self._stalled += now - self._updated
        self._updated = now


class Witnesses:
    """Of all replicas; fed by the bus."""

    def __init__(self, replicas: Iterable[str], clock: Clock) -> None:
        self._clock = clock
        self._witnesses: Mapping[str, Witness] = {name: Witness(clock) for name in replicas}

    def __getitem__(self, replica: str) -> Witness:
        return self._witnesses[replica]

    def take(self, batch: Batch, worker: Hello) -> None:
        """What a worker tells; costs little beside the rest of the batch."""
        if batch.at < self._clock.monotonic() - _STALE:
            return
        gauges = batch.gauges
        moving = {source.engine for source in batch.tokens.sources}
        moving.update(
            record.engine for record in batch.records if record.engine and record.upstream_done_at is not None
        )
        for name, witness in self._witnesses.items():
            if name in moving:
                witness.progressed()
            witness.holds(worker.boot, gauges.in_flight.get(name, 0))
            seen = gauges.seen.get(name)
            if seen is not None:
                witness.saw(seen)

    def left(self, worker: Hello) -> None:
        """The worker has gone, and its requests with it."""
        for witness in self._witnesses.values():
            witness.holds(worker.boot, 0)
