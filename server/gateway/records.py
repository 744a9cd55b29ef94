"""What a worker reports: records and token times, gathered in batches and held until acknowledged."""

from __future__ import annotations

import sys
from array import array
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from math import nan
from typing import Final

from server.clock import Clock
from server.units import Seconds
from server.wire import Batch, Candidate, RequestRecord, Source, TokenTimes, WorkerGauges

__all__ = ["Gauges", "Recorder", "TokenLog"]

_RECORDS_A_BATCH = 1000
_NO_TOKENS: Final = TokenTimes()

Gauges = Callable[[int], WorkerGauges]
"""What the worker is doing now; the argument is the number of records dropped."""


@dataclass(slots=True, kw_only=True, eq=False)
class TokenLog:
    """One stream's token arrival times that no batch has taken yet."""

    id: str
    tenant: str
    candidate: Candidate
    sent_at: Seconds
    times: array[float] = field(default_factory=lambda: array("d"))
    """Whoever watches the stream appends here."""
    previous_at: float = nan
    """The last time that a batch took."""
    taken: int = 0
    """Times that batches took."""

    @property
    def count(self) -> int:
        """Times of the whole stream so far."""
        return self.taken + len(self.times)

    @property
    def last_at(self) -> Seconds | None:
        """The last of them."""
        if self.times:
            return Seconds(self.times[-1])
        return Seconds(self.previous_at) if self.taken else None


class Recorder:
    """Gathers what ended and what arrives; cuts batches; keeps each until a control plane has acknowledged it."""

    def __init__(self, *, max_backlog: int, clock: Clock, gauges: Gauges) -> None:
        self._max_backlog = max_backlog
        self._cut_at = min(_RECORDS_A_BATCH, max(1, max_backlog // 10))
        self._clock = clock
        self._gauges = gauges
        self._records: list[RequestRecord] = []
        self._ended_logs: list[TokenLog] = []
        self._logs: set[TokenLog] = set()
        self._batches: deque[Batch] = deque()
        self._held = 0
        self._seq = 0
        self.dropped = 0
        """Records given up because no control plane took them."""

    @property
    def held(self) -> int:
        """Records and token series that wait to be acknowledged."""
        return self._held

    @property
    def held_records(self) -> int:
        """The records among them."""
        return sum(len(batch.records) for batch in self._batches)

    def follow(self, log: TokenLog) -> None:
        """Report this stream's token times with every batch until `unfollow`."""
        self._logs.add(log)

    def unfollow(self, log: TokenLog) -> None:
        """The stream has ended; what it still holds goes with the next batch."""
        self._logs.discard(log)
        if log.times:
            self._ended_logs.append(log)

    def add(self, record: RequestRecord) -> None:
        """A request has ended."""
        self._records.append(record)
        if len(self._records) >= self._cut_at:
            self.cut(even_if_empty=False)

    def cut(self, *, even_if_empty: bool) -> None:
        """Make a batch of all that happened since the last one; the oldest batches go when too much is held."""
        logs = self._ended_logs
        logs += [log for log in self._logs if log.times]
        if not self._records and not logs and not even_if_empty:
            return
        self._seq += 1
        batch = Batch(
            seq=self._seq,
            at=self._clock.monotonic(),
            records=self._records,
            tokens=_take(logs) if logs else _NO_TOKENS,
            gauges=self._gauges(self.dropped),
        )
        self._records, self._ended_logs = [], []
        self._batches.append(batch)
        self._held += _weight(batch)
        while self._held > self._max_backlog and len(self._batches) > 1:
            oldest = self._batches.popleft()
            self._held -= _weight(oldest)
            self.dropped += len(oldest.records)

    def acknowledge(self, seq: int) -> None:
        """A control plane holds this batch and all before it."""
        while self._batches and self._batches[0].seq <= seq:
            self._held -= _weight(self._batches.popleft())

    def give_up(self, seq: int) -> None:
        """This batch can never be sent; its records are dropped and counted."""
        for batch in [batch for batch in self._batches if batch.seq == seq]:
            self._batches.remove(batch)
            self._held -= _weight(batch)
            self.dropped += len(batch.records)

    def after(self, seq: int) -> Iterator[Batch]:
        """The batches that are held, from the one after `seq` on, oldest first."""
        return iter([batch for batch in self._batches if batch.seq > seq])

    @property
    def all_acknowledged(self) -> bool:
        return not self._batches


def _weight(batch: Batch) -> int:
    return max(1, len(batch.records) + len(batch.tokens.ids))


def _take(logs: Sequence[TokenLog]) -> TokenTimes:
    """Pack the times of these, of which each has some, and forget them.

    There may be thousands, and the event loop waits: column by column costs less than stream by stream.
    """
    # Candidates by identity: hashing one costs more than all the rest.
    sources = {(id(log.candidate), log.tenant): log for log in logs}
    places = {source: place for place, source in enumerate(sources)}
    taken = TokenTimes(
        sources=[_source(log.candidate, log.tenant) for log in sources.values()],
        ids=[log.id for log in logs],
        source_of=_little(array("I", [places[id(log.candidate), log.tenant] for log in logs])),
        counts=_little(array("I", [len(log.times) for log in logs])),
        sent_at=_little(array("d", [log.sent_at for log in logs])),
        previous_at=_little(array("d", [log.previous_at for log in logs])),
        times=_little(array("d", b"".join([log.times for log in logs]))),
    )
    for log in logs:
        times = log.times
        log.previous_at = times[-1]
        log.taken += len(times)
        del times[:]
    return taken


def _source(one: Candidate, tenant: str) -> Source:
    return Source(
        tenant=tenant,
        model=one.model,
        variant=one.variant,
        precision=one.precision,
        adapter=one.adapter,
        engine=one.replica,
    )


def _little(values: array[int] | array[float]) -> bytes:
    """Little-endian, as the wire wants it."""
    if sys.byteorder == "big":
        values.byteswap()
    return values.tobytes()
