"""What waits to be written: batches in their order, energies, postings; bounded, and counted when lost."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from server.accounts import Posting, Rates, RequestEnergy
from server.ledger.rows import Postings, add_postings
from server.units import Microjoules
from server.wire import Batch, Hello, RequestRecord

__all__ = ["Acknowledgement", "Chunk", "Waiting", "WaitingBatch"]

_MAX_LIVES: Final = 1024
"""Lives of workers remembered; a worker's batches can only come twice while it lives."""
_MAX_RECORDS: Final = 5000
"""In a transaction: more would make it long, fewer would make each record dearer."""
_PACK: Final = msgspec.msgpack.Encoder()
_UNPACK: Final = msgspec.msgpack.Decoder(list[RequestRecord])

Acknowledgement = tuple[Hello, int]
"""This worker's batches up to this one may be forgotten by it."""


class WaitingBatch:
    """The records of one batch."""

    __slots__ = ("_packed", "_records", "count", "epoch", "seq", "worker")

    def __init__(self, batch: Batch, worker: Hello, epoch: float) -> None:
        self.worker = worker
        self.seq = batch.seq
        self.epoch = epoch
        """Wall time at monotonic 0 when the batch came."""
        self.count = len(batch.records)
        self._records: Sequence[RequestRecord] | None = batch.records
        self._packed = b""

    def records(self) -> Sequence[RequestRecord]:
        return _UNPACK.decode(self._packed) if self._records is None else self._records

    def pack(self) -> None:
        """Take a quarter of the memory, for a longer wait."""
        if self._records is not None:
            self._packed, self._records = _PACK.encode(self._records), None


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """What the next transaction is to write."""

    batches: Sequence[WaitingBatch]
    energies: Sequence[tuple[RequestEnergy, Rates]]
    postings: Postings
    number: int
    """Of the postings; the same ones come again under the same number until they are known to be written."""

    @property
    def is_empty(self) -> bool:
        return not (self.batches or self.energies or self.postings)


@dataclass(slots=True)
class _Life:
    """Of a worker, from its start to its end."""

    worker: Hello
    taken: int = 0
    unwritten: dict[int, None] = field(default_factory=dict)
    """Numbers of its batches that wait, ascending."""

    @property
    def held(self) -> int:
        """The newest batch up to which all are written or lost."""
        return min(self.unwritten) - 1 if self.unwritten else self.taken


class Waiting:
    """Not thread-safe: whoever owns it holds a lock around each call."""

    def __init__(self, max_records: int) -> None:
        self._max_records = max_records
        self._lives: OrderedDict[str, _Life] = OrderedDict()
        self._batches: deque[WaitingBatch] = deque()
        self._energies: deque[tuple[RequestEnergy, Rates]] = deque()
        self._postings: Postings = {}
        self._frozen: Postings = {}
        """Those of a chunk that may or may not be written: the next chunk is to have exactly these."""
        self._number = 0
        self._out = False
        """A chunk is being written."""
        self.records = 0
        """Taken and not yet written, those of a chunk that is being written included."""
        self.lost = 0
        self.energies_lost = 0

    @property
    def is_empty(self) -> bool:
        return not (self.records or self._out or self._energies or self._postings or self._frozen)

    def take(self, batch: Batch, worker: Hello, epoch: float) -> bool:
        """Queue a batch's records unless it came before; whether nothing of this worker waits now."""
        life = self._lives.setdefault(worker.boot, _Life(worker))
        life.worker = worker
        self._lives.move_to_end(worker.boot)
        self._forget_lives(life)
        if batch.seq > life.taken:
            life.taken = batch.seq
            if batch.records:
                life.unwritten[batch.seq] = None
                self._batches.append(WaitingBatch(batch, worker, epoch))
                self.records += len(batch.records)
        return not life.unwritten

    def post(
        self, finals: Sequence[RequestEnergy], postings: Mapping[Posting, Microjoules], rates: Rates, *, at: float
    ) -> None:
        """Queue energies; postings of the same kind and hour become one, so that they are never too many."""
        self._energies.extend((final, rates) for final in finals)
        while len(self._energies) > self._max_records:
            self._energies.popleft()
            self.energies_lost += 1
        add_postings(self._postings, postings, rates, at=at)

    def next(self) -> Chunk:
        """The oldest of all; `written` or `failed` must follow."""
        batches, records = [], 0
        while self._batches and records < _MAX_RECORDS:
            batches.append(self._batches.popleft())
            records += batches[-1].count
        energies = [self._energies.popleft() for _ in range(min(_MAX_RECORDS, len(self._energies)))]
        if self._postings and not self._frozen:
            self._frozen, self._postings = self._postings, {}
            self._number += 1
        self._out = True
        return Chunk(batches=batches, energies=energies, postings=self._frozen, number=self._number)

    def written(self, chunk: Chunk) -> list[Acknowledgement]:
        """The chunk is in the ledger."""
        self._frozen, self._out = {}, False
        return self._settle(chunk.batches)

    def failed(self, chunk: Chunk) -> None:
        """The chunk is not in the ledger, or nobody knows: it comes again."""
        self._out = False
        self._batches.extendleft(reversed(chunk.batches))
        self._energies.extendleft(reversed(chunk.energies))

    def shed(self, keep: int | None = None) -> list[Acknowledgement]:
        """Lose the oldest batches until no more records than `keep` (default: the bound) wait."""
        lost: list[WaitingBatch] = []
        keep = self._max_records if keep is None else keep
        while self._batches and self.records - sum(batch.count for batch in lost) > keep:
            lost.append(self._batches.popleft())
        self.lost += sum(batch.count for batch in lost)
        return self._settle(lost)

    def pack(self) -> None:
        """Take less memory, for a longer wait."""
        for batch in self._batches:
            batch.pack()

    def _settle(self, batches: Sequence[WaitingBatch]) -> list[Acknowledgement]:
        """These are written or lost: what their workers may forget now."""
        for batch in batches:
            self.records -= batch.count
            self._lives[batch.worker.boot].unwritten.pop(batch.seq, None)
        lives = [self._lives[boot] for boot in dict.fromkeys(batch.worker.boot for batch in batches)]
        return [(life.worker, life.held) for life in lives]

    def _forget_lives(self, but: _Life) -> None:
        if len(self._lives) > _MAX_LIVES:
            idle = (boot for boot, life in self._lives.items() if not life.unwritten and life is not but)
            self._lives.pop(next(idle, ""), None)
