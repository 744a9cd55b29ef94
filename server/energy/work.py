"""What is known of each request's work."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress
from operator import attrgetter
from typing import Any, Final

import numpy as np

from server.arrivals import Arrivals
from server.energy.chunks import Chunks
from server.energy.columns import NEW, UNKNOWN, WORK, Flags, Floats, Integers, Works
from server.units import Seconds
from server.wire import NO_ADAPTER, Batch, Hello, Outcome, RequestRecord

__all__ = ["MAX_REQUESTS", "Payer", "WorkBook"]

Payer = tuple[str, str, str, str, str, str]
"""engine, model, variant, precision, adapter, tenant"""

MAX_REQUESTS: Final = 100_000
"""Beyond these the oldest are to be forgotten."""
_MAX_PAYERS = 10_000
_SILENT_AFTER = Seconds(600.0)
"""A stream without a chunk for so long has lost its record; it no longer holds windows open."""

_PAYER = attrgetter("engine", "model", "variant", "precision", "adapter", "tenant")
_NUMBERS = attrgetter(
    "sent_at",
    "ended_at",
    "upstream_done_at",
    "first_token_at",
    "prompt_tokens",
    "cached_tokens",
    "output_tokens",
    "token_chunks",
)


class WorkBook:
    """The requests of the windows that are still open, a row for each, oldest first."""

    def __init__(self) -> None:
        self.chunks = Chunks()
        """The keys that it gives are `works["key"]`."""
        self._table = np.zeros(64, WORK)
        self._size = 0
        self._ids: list[str] = []
        """One for each row."""
        self._payers: dict[Payer, int] = {}
        self._workers: dict[str, int] = {}
        """By boot."""
        self._unrecorded: dict[int, dict[str, int]] = {}
        """By worker and id, the key: clients choose ids, so one may come twice, but not at the same time."""
        self._keys_given = 0

    @property
    def works(self) -> Works:
        """All rows; to be changed in place. It holds until the next `take` or `forget`."""
        return self._table[: self._size]

    def __len__(self) -> int:
        return self._size

    def take(self, batch: Batch, worker: Hello, *, accounted_until: float) -> None:
        """Learn from a batch. Requests that begin before `accounted_until` come too late to be accounted whole."""
        number = self._workers.setdefault(worker.boot, len(self._workers))
        unrecorded = self._unrecorded.setdefault(number, {})
        known = self._size
        if batch.tokens.ids:
            self._take_tokens(Arrivals.of(batch.tokens), number, unrecorded)
        places = [
            place
            for place, record in enumerate(batch.records)
            if record.sent_at is not None and record.engine is not None
        ]
        if places:
            rows = self._take_records([batch.records[place] for place in places], number, unrecorded)
            self.works["seq"][rows], self.works["place"][rows] = batch.seq, places
        fresh = self.works[known:]
        fresh["complete"] = fresh["sent_at"] >= accounted_until

    def left(self, worker: Hello) -> None:
        """The worker is gone; what of its streams is known is all, unless it comes back."""
        works = self.works
        _end(works, works["worker"] == self._workers.get(worker.boot, UNKNOWN))

    def give_up_silent(self, now: float) -> None:
        """End the streams whose record will not come."""
        works = self.works
        _end(works, now - works["last_at"] > _SILENT_AFTER)

    def running(self) -> int:
        """How many requests are known to run."""
        return int(np.count_nonzero(np.isnan(self.works["done_at"])))

    def running_before(self, at: float) -> bool:
        """Is a request known to run that was sent before `at`?"""
        works = self.works
        return bool((np.isnan(works["done_at"]) & (works["sent_at"] < at)).any())

    def sum_by_payer(self, rows: Integers, *amounts: Integers) -> list[tuple[Payer, list[int]]]:
        """The sums of what belongs to `rows`, by payer; those of whom all sums are 0 are left out."""
        of_each = self.works["payer"][rows]
        sums = np.zeros((len(self._payers), len(amounts)), np.int64)
        for column, amount in enumerate(amounts):
            np.add.at(sums[:, column], of_each, amount)
        return [(payer, of_payer) for payer, of_payer in zip(self._payers, sums.tolist(), strict=True) if any(of_payer)]

    def payers(self) -> list[Payer]:
        """In the order of their numbers in `works`."""
        return list(self._payers)

    def boots(self) -> list[str]:
        """Of the workers, in the order of their numbers in `works`."""
        return list(self._workers)

    def ids(self, which: Flags) -> list[str]:
        """Of these rows, in their order."""
        return list(compress(self._ids, which.tolist()))

    def forget(self, which: Flags, before: float) -> None:
        """Drop these rows, and batches of token times that end before `before`."""
        if which.any():
            self._drop(which)
        gone = self.places_of(self.chunks.forget(before), np.arange(self._size))
        self.works["chunks_gone"] += np.bincount(gone[gone != UNKNOWN], minlength=self._size)

    def places_of(self, keys: Integers, rows: Integers) -> Integers:
        """Where in `rows` the requests of these keys stand; UNKNOWN for those that do not."""
        places = np.full(self._size + 1, UNKNOWN)
        places[rows] = np.arange(len(rows))
        known = self.works["key"]
        found = np.searchsorted(known, keys)
        inside = found < self._size
        inside[inside] = known[found[inside]] == keys[inside]
        return places[np.where(inside, found, self._size)]

    def _take_tokens(self, arrivals: Arrivals, worker: int, unrecorded: dict[str, int]) -> None:
        sources = [
            self._payer((s.engine, s.model, s.variant, s.precision, s.adapter, s.tenant)) for s in arrivals.sources
        ]
        keys = np.zeros(len(arrivals.ids), np.int64)
        fresh: list[int] = []
        for index, request_id in enumerate(arrivals.ids):
            key = unrecorded.get(request_id)
            if key is None:
                key = unrecorded[request_id] = self._keys_given + len(fresh)
                fresh.append(index)
            keys[index] = key
        new = self._open([arrivals.ids[index] for index in fresh], worker)
        new["payer"] = np.array(sources, np.int64)[arrivals.source_of[fresh]]
        new["sent_at"] = arrivals.sent_at[fresh]
        works, rows = self.works, self._rows(keys)
        begins = np.isnan(works["first_token_at"][rows]) & np.isnan(arrivals.previous_at)
        works["first_token_at"][rows[begins]] = arrivals.times[arrivals.starts[begins]]
        works["last_at"][rows] = arrivals.times[arrivals.starts + arrivals.counts - 1]
        works["done_at"][rows] = np.nan
        self.chunks.add(arrivals.times, np.repeat(keys, arrivals.counts))

    def _take_records(self, records: Sequence[RequestRecord], worker: int, unrecorded: dict[str, int]) -> Integers:
        """Their rows."""
        ids = [record.id for record in records]
        keys = np.full(len(ids), UNKNOWN)
        if unrecorded:
            keys = np.array([unrecorded.pop(request_id, UNKNOWN) for request_id in ids], np.int64)
        payers = np.array([self._payer(payer) for payer in map(_PAYER, records)], np.int64)
        sent_at, ended_at, done_at, first_token_at, prompt, cached, output, chunks = np.array(
            [_NUMBERS(record) for record in records], np.float64
        ).T
        fresh = keys == UNKNOWN
        keys[fresh] = self._keys_given + np.arange(np.count_nonzero(fresh))
        new = self._open(list(compress(ids, fresh.tolist())), worker)
        new["payer"], new["sent_at"] = payers[fresh], sent_at[fresh]
        works, rows = self.works, self._rows(keys)
        done_at = np.maximum(np.where(np.isnan(done_at), ended_at, done_at), sent_at)
        works["last_at"][rows] = works["done_at"][rows] = done_at
        works["first_token_at"][rows] = first_token_at
        works["prompt_tokens"][rows] = _integers(prompt)
        works["computed_prompt_tokens"][rows] = _integers(np.maximum(0, prompt - np.nan_to_num(cached)))
        works["output_tokens"][rows] = _integers(output)
        works["token_chunks"][rows] = chunks
        works["recorded"][rows] = True
        works["completed"][rows] = [record.outcome is Outcome.OK for record in records]
        return rows

    def _payer(self, names: Any) -> int:
        """Its number; `names` are a `Payer`, but each may be None, and then counts as `none`."""
        number = self._payers.get(names)
        if number is None:
            engine, model, variant, precision, adapter, tenant = (name or NO_ADAPTER for name in names)
            payer = (engine, model, variant, precision, adapter, tenant)
            number = self._payers.setdefault(payer, len(self._payers))
        return number

    def _open(self, ids: Sequence[str], worker: int) -> Works:
        """Rows for requests that were not known; returns them."""
        size = self._size + len(ids)
        if size > len(self._table):
            self._table = np.concatenate([self.works, np.zeros(size, WORK)])
        new = self._table[self._size : size]
        new[:] = NEW
        new["key"] = self._keys_given + np.arange(len(ids))
        new["worker"] = worker
        self._keys_given += len(ids)
        self._ids += ids
        self._size = size
        return new

    def _rows(self, keys: Integers) -> Integers:
        return np.searchsorted(self.works["key"], keys)

    def _drop(self, which: Flags) -> None:
        works = self.works
        lost = which & ~works["recorded"]
        for worker, request_id in zip(works["worker"][lost].tolist(), self.ids(lost), strict=True):
            self._unrecorded[worker].pop(request_id, None)
        kept = works[~which]
        self._ids = self.ids(~which)
        self._table[: len(kept)] = kept
        self._size = len(kept)
        if len(self._payers) > _MAX_PAYERS:
            self._forget_payers()

    def _forget_payers(self) -> None:
        """Keep only those of rows."""
        payers, (used, numbers) = self.payers(), np.unique(self.works["payer"], return_inverse=True)
        self._payers = {payers[number]: place for place, number in enumerate(used.tolist())}
        self.works["payer"] = numbers


def _end(works: Works, which: Flags) -> None:
    """They run no more, as far as they are known to run."""
    which &= np.isnan(works["done_at"])
    works["done_at"][which] = works["last_at"][which]


def _integers(values: Floats) -> Integers:
    """NaN becomes UNKNOWN."""
    return np.where(np.isnan(values), UNKNOWN, values).astype(np.int64)
