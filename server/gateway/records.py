"""What a worker reports: records and token times, gathered in batches and held until acknowledged."""

from __future__ import annotations

import sys
from array import array
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from server.clock import Clock
from server.units import Seconds
from server.wire import Batch, Candidate, RequestRecord, TokenTimes, WorkerGauges

__all__ = ["Gauges", "Recorder", "TokenLog"]

_RECORDS_A_BATCH = 1000

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
    previous_at: float | None = None

    def take(self) -> TokenTimes:
        """Pack the times and forget them."""
        packed = self.times if sys.byteorder == "little" else _swapped(self.times)
        one, previous = self.candidate, self.previous_at
        taken = TokenTimes(
            id=self.id,
            tenant=self.tenant,
            model=one.model,
            variant=one.variant,
            precision=one.precision,
            adapter=one.adapter,
            engine=one.replica,
            sent_at=self.sent_at,
            previous_at=previous,
            times=packed.tobytes(),
        )
        self.previous_at = self.times[-1]
        del self.times[:]
        return taken


class Recorder:
    """Gathers what ended and what arrives; cuts batches; keeps each until a control plane has acknowledged it."""

    def __init__(self, *, max_backlog: int, clock: Clock, gauges: Gauges) -> None:
        self._max_backlog = max_backlog
        self._cut_at = min(_RECORDS_A_BATCH, max(1, max_backlog // 10))
        self._clock = clock
        self._gauges = gauges
        self._records: list[RequestRecord] = []
        self._ended_logs: list[TokenTimes] = []
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

    def follow(self, log: TokenLog) -> None:
        """Report this stream's token times with every batch until `unfollow`."""
        self._logs.add(log)

    def unfollow(self, log: TokenLog) -> None:
        """The stream has ended; what it still holds goes with the next batch."""
        self._logs.discard(log)
        if log.times:
            self._ended_logs.append(log.take())

    def add(self, record: RequestRecord) -> None:
        """A request has ended."""
        self._records.append(record)
        if len(self._records) >= self._cut_at:
            self.cut(even_if_empty=False)

    def cut(self, *, even_if_empty: bool) -> None:
        """Make a batch of all that happened since the last one; the oldest batches go when too much is held."""
        tokens = self._ended_logs
        tokens += [log.take() for log in self._logs if log.times]
        if not self._records and not tokens and not even_if_empty:
            return
        self._seq += 1
        batch = Batch(
            seq=self._seq,
            at=self._clock.monotonic(),
            records=self._records,
            tokens=tokens,
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

    def after(self, seq: int) -> Iterator[Batch]:
        """The batches that are held, from the one after `seq` on, oldest first."""
        return iter([batch for batch in self._batches if batch.seq > seq])

    @property
    def all_acknowledged(self) -> bool:
        return not self._batches


def _weight(batch: Batch) -> int:
    return max(1, len(batch.records) + len(batch.tokens))


def _swapped(times: array[float]) -> array[float]:
    other = array("d", times)
    other.byteswap()
    return other
