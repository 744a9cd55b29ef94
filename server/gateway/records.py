"""What a worker reports: records and token times, gathered in batches and held until acknowledged."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

from server.clock import Clock
from server.gateway.token_log import TokenColumns, TokenLog
from server.units import Seconds
from server.wire import Batch, RequestRecord, TokenTimes, WorkerGauges

__all__ = ["Gauges", "Recorder"]

_RECORDS_A_BATCH: Final = 1000
_STREAMS_AT_ONCE: Final = 500
"""Packed in about a millisecond, in which nothing else can happen."""
_NO_TOKENS: Final = TokenTimes()

Gauges = Callable[[int], WorkerGauges]
"""What the worker is doing now; the argument is the number of records dropped."""


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
        self._gathering: list[TokenLog] = []
        """Of the running streams, those that this round has still to pack."""
        self._gathered: TokenColumns | None = None
        self._gathered_at: Seconds | None = None
        """When this round began: what happened before is all in its batch."""
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

    def gather(self) -> bool:
        """Pack the token times of some streams for the next batch; False if none are left.

        There may be thousands of streams: whoever calls this lets other things happen in between, and then cuts.
        """
        if self._gathered_at is None:
            self._gathered_at = self._clock.monotonic()
            self._gathering = [log for log in self._logs if log.times]
        logs = self._gathering[-_STREAMS_AT_ONCE:]
        del self._gathering[-_STREAMS_AT_ONCE:]
        self._pack(logs)
        return bool(self._gathering)

    def cut(self, *, even_if_empty: bool) -> None:
        """Make a batch of all that happened since the last one; the oldest batches go when too much is held."""
        while self.gather():
            pass
        self._pack(self._ended_logs)
        tokens, at = self._gathered, self._gathered_at
        assert at is not None, "gathered above"
        self._gathered, self._gathered_at = None, None
        if not self._records and tokens is None and not even_if_empty:
            return
        self._seq += 1
        batch = Batch(
            seq=self._seq,
            at=at,
            records=self._records,
            tokens=tokens.packed() if tokens is not None else _NO_TOKENS,
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

    def _pack(self, logs: list[TokenLog]) -> None:
        logs = [log for log in logs if log.times]
        if logs:
            if self._gathered is None:
                self._gathered = TokenColumns()
            self._gathered.take(logs)


def _weight(batch: Batch) -> int:
    return max(1, len(batch.records) + len(batch.tokens.ids))
