"""What is known of each request's work, and how much of it falls into a window."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import compress
from operator import attrgetter
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from server.arrivals import Arrivals
from server.energy.attribution import RequestUses
from server.units import Seconds
from server.wire import NO_ADAPTER, Batch, Hello, Outcome, RequestRecord

__all__ = ["PROMPT_TOKEN_MILLITOKENS", "Floats", "Integers", "Payer", "WorkBook", "Works"]

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Works = npt.NDArray[Any]
"""Rows of `_WORK`."""

Payer = tuple[str, str, str, str, str, str]
"""engine, model, variant, precision, adapter, tenant"""

_TOKEN: Final = 1000
"""An output token, in millitokens."""
PROMPT_TOKEN_MILLITOKENS: Final = 100
"""A computed prompt token counts a tenth of an output token: one decode step reads all weights for a few tokens, a
prefill chunk for hundreds. A convention, not a measurement: one reason why the method's confidence is low."""

_MAX_REQUESTS = 100_000
_MAX_PAYERS = 10_000
_SILENT_AFTER = Seconds(600.0)
"""A stream without a chunk for so long has lost its record; it no longer holds windows open."""

UNKNOWN: Final = -1
"""In columns of integers; in columns of times it is NaN."""

_WORK = np.dtype(
    [
        ("key", np.int64),  # ascends
        ("payer", np.int64),
        ("worker", np.int64),
        ("sent_at", np.float64),
        ("last_at", np.float64),  # the last that was heard of it
        ("first_token_at", np.float64),
        ("done_at", np.float64),  # when the engine was done with it; NaN: it runs
        ("computed_prompt_tokens", np.int64),
        ("output_tokens", np.int64),
        ("token_chunks", np.int64),
        ("energy", np.int64),  # µJ of the windows closed so far; UNKNOWN: there was none
        ("recorded", np.bool_),
        ("completed", np.bool_),
        ("complete", np.bool_),  # False: some of its time is in windows that nobody can account for any more
    ]
)

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
    """The requests of the windows that are still open, a row for each, oldest first, in bounded memory."""

    def __init__(self) -> None:
        self._table = np.zeros(64, _WORK)
        self._size = 0
        self._ids: list[str] = []
        """One for each row."""
        self._payers: dict[Payer, int] = {}
        self._workers: dict[str, int] = {}
        """By boot."""
        self._unrecorded: dict[int, dict[str, int]] = {}
        """By worker and id, the key: clients choose ids, so one may come twice, but not at the same time."""
        self._keys_given = 0
        self._chunks: list[tuple[Floats, Integers]] = []
        """Token times, and the keys of their requests; one pair for each batch."""

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
        records = [record for record in batch.records if record.sent_at is not None and record.engine is not None]
        if records:
            self._take_records(records, number, unrecorded)
        fresh = self.works[known:]
        fresh["complete"] = fresh["sent_at"] >= accounted_until
        if self._size > _MAX_REQUESTS:
            self._drop(np.arange(self._size) < self._size - _MAX_REQUESTS)

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

    def in_window(self, start: float, end: float, engines: Mapping[str, int]) -> tuple[Integers, RequestUses, Integers]:
        """Who was at `engines` in start ≤ t < end, and their use of it, and the output millitokens of each engine.

        The first names rows; `engines` gives each its place.
        """
        works = self.works
        place_of = np.array([engines.get(payer[0], UNKNOWN) for payer in self._payers], np.int64)
        places = place_of[works["payer"]]
        until = np.where(np.isnan(works["done_at"]), end, works["done_at"])
        rows = ((places != UNKNOWN) & (works["sent_at"] < end) & ~(until < start)).nonzero()[0]
        there, places, until = works[rows], places[rows], until[rows]
        output = _output_millitokens(there, self._chunks_within(start, end)[rows], start, end)
        output_of = np.zeros(len(engines), np.int64)
        np.add.at(output_of, places, np.rint(output).astype(np.int64))
        overlap = np.maximum(0.0, np.minimum(until, end) - np.maximum(there["sent_at"], start))
        use = RequestUses(
            engine=places,
            millitokens=np.rint(output + _prompt_millitokens(there, start, end)).astype(np.int64),
            overlap_us=np.rint(overlap * 1e6).astype(np.int64),
        )
        return rows, use, output_of

    def pay(self, rows: Integers, energy: Integers) -> None:
        """Add to what these have used; one that adds 0 has used 0 J, which is known."""
        before = self.works["energy"][rows]
        self.works["energy"][rows] = np.where(before == UNKNOWN, 0, before) + energy

    def sum_by_payer(self, rows: Integers, energy: Integers) -> list[tuple[Payer, int]]:
        """What each payer's requests among these use together; those that use nothing are left out."""
        paying = energy > 0
        of_each = self.works["payer"][rows[paying]]
        sums = np.zeros(len(self._payers), np.int64)
        np.add.at(sums, of_each, energy[paying])
        payers = list(self._payers)
        first_come = dict.fromkeys(of_each.tolist())
        return [(payers[payer], int(sums[payer])) for payer in first_come]

    def payers(self) -> list[Payer]:
        """In the order of their numbers in `works`."""
        return list(self._payers)

    def ids(self, which: Flags) -> list[str]:
        """Of these rows, in their order."""
        return list(compress(self._ids, which.tolist()))

    def forget(self, which: Flags, before: float) -> None:
        """Drop these rows, and all token times before `before`."""
        if which.any():
            self._drop(which)
        self._chunks = [(times, keys) for times, keys in self._chunks if times.max() >= before]

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
        self._chunks.append((arrivals.times, np.repeat(keys, arrivals.counts)))

    def _take_records(self, records: Sequence[RequestRecord], worker: int, unrecorded: dict[str, int]) -> None:
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
        works["computed_prompt_tokens"][rows] = np.maximum(0, np.nan_to_num(prompt) - np.nan_to_num(cached))
        works["output_tokens"][rows] = np.where(np.isnan(output), UNKNOWN, output)
        works["token_chunks"][rows] = chunks
        works["recorded"][rows] = True
        works["completed"][rows] = [record.outcome is Outcome.OK for record in records]

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
            self._table = np.concatenate([self.works, np.zeros(size, _WORK)])
        new = self._table[self._size : size]
        new[:] = np.zeros(1, _WORK)
        new["key"] = self._keys_given + np.arange(len(ids))
        new["worker"] = worker
        new["last_at"] = new["first_token_at"] = new["done_at"] = np.nan
        new["output_tokens"] = new["energy"] = UNKNOWN
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

    def _chunks_within(self, start: float, end: float) -> Integers:
        """Token chunks of each row."""
        counts = np.zeros(self._size, np.int64)
        if not self._size:
            return counts
        known = self.works["key"]
        for times, keys in self._chunks:
            within = keys[(times >= start) & (times < end)]
            rows = np.minimum(np.searchsorted(known, within), self._size - 1)
            np.add.at(counts, rows[known[rows] == within], 1)
        return counts


def _end(works: Works, which: Flags) -> None:
    """They run no more, as far as they are known to run."""
    which &= np.isnan(works["done_at"])
    works["done_at"][which] = works["last_at"][which]


def _prompt_millitokens(works: Works, start: float, end: float) -> Floats:
    """Their prompts' share of a window: evenly between sent and first token (or the end, without streaming)."""
    known = np.where(np.isnan(works["done_at"]), works["last_at"], works["done_at"])
    known = np.where(np.isnan(works["first_token_at"]), known, works["first_token_at"])
    part = _part_within(works["sent_at"], known, start, end)
    millitokens: Floats = works["computed_prompt_tokens"] * PROMPT_TOKEN_MILLITOKENS * part
    return millitokens


def _output_millitokens(works: Works, chunks: Integers, start: float, end: float) -> Floats:
    """Their output in a window: `chunks` came in it; without streaming, evenly between sent and done."""
    output, streamed = works["output_tokens"], works["token_chunks"] > 0
    a_chunk = np.where(streamed & (output != UNKNOWN), output / np.maximum(works["token_chunks"], 1), 1.0)
    by_time = output * _TOKEN * _part_within(works["sent_at"], works["done_at"], start, end)
    whole = ~streamed & (output != UNKNOWN) & ~np.isnan(works["done_at"])
    return np.where(whole, by_time, chunks * _TOKEN * a_chunk)


def _part_within(start: Floats, end: Floats, window_start: float, window_end: float) -> Floats:
    """The share of start … end that lies in the window; an instant lies wholly in one window."""
    lasting = end > start
    inside = np.maximum(0.0, np.minimum(end, window_end) - np.maximum(start, window_start))
    instant = (window_start <= start) & (start < window_end)
    return np.where(lasting, inside / np.where(lasting, end - start, 1.0), instant)
