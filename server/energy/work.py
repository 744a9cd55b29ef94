"""What is known of each request's work, and how much of it falls into a window."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from server.energy.attribution import RequestUse
from server.units import Microjoules, Seconds
from server.wire import NO_ADAPTER, Batch, Hello, Outcome, RequestRecord, TokenTimes

__all__ = ["PROMPT_TOKEN_MILLITOKENS", "Work", "WorkBook"]

_TOKEN: Final = 1000
"""An output token, in millitokens."""
PROMPT_TOKEN_MILLITOKENS: Final = 100
"""A computed prompt token counts a tenth of an output token: one decode step reads all weights for a few tokens, a
prefill chunk for hundreds. A convention, not a measurement: one reason why the method's confidence is low."""

_MAX_REQUESTS = 100_000
_SILENT_AFTER = Seconds(600.0)
"""A stream without a chunk for so long has lost its record; it no longer holds windows open."""


@dataclass(slots=True)
class Work:
    """One request at an engine."""

    key: int
    id: str
    tenant: str
    labels: tuple[str, str, str, str, str]
    """engine, model, variant, precision, adapter"""
    worker: str
    sent_at: float
    last_at: float
    """The last that was heard of it."""
    first_token_at: float | None = None
    done_at: float | None = None
    """When the engine was done with it; None: it runs."""
    computed_prompt_tokens: int = 0
    output_tokens: int | None = None
    token_chunks: int = 0
    completed: bool = False
    energy: Microjoules | None = None
    """Of the windows closed so far; None: there was none."""
    complete: bool = True
    """False: some of its time is in windows that closed before it was known, or that nobody metered."""

    @property
    def engine(self) -> str:
        return self.labels[0]

    def prompt_millitokens(self, start: float, end: float) -> float:
        """Its prompt's share of a window: evenly between sent and first token (or the end, without streaming)."""
        known = (at for at in (self.first_token_at, self.done_at, self.last_at) if at is not None)
        part = _part_within(self.sent_at, next(known), start, end)
        return self.computed_prompt_tokens * PROMPT_TOKEN_MILLITOKENS * part

    def output_millitokens(self, chunks: int, start: float, end: float) -> float:
        """Its output in a window: `chunks` came in it; without streaming, evenly between sent and done."""
        if self.token_chunks:
            return chunks * _TOKEN * (1.0 if self.output_tokens is None else self.output_tokens / self.token_chunks)
        if self.output_tokens is not None and self.done_at is not None:
            return self.output_tokens * _TOKEN * _part_within(self.sent_at, self.done_at, start, end)
        return float(chunks * _TOKEN)


class WorkBook:
    """The requests of the windows that are still open, in bounded memory."""

    def __init__(self) -> None:
        self._works: OrderedDict[int, Work] = OrderedDict()
        self._unrecorded: dict[tuple[str, str], Work] = {}
        """By worker and id: clients choose ids, so one may come twice, but not at the same time."""
        self._keys_given = 0
        self._times: list[npt.NDArray[np.float64]] = []
        self._keys: list[npt.NDArray[np.int64]] = []

    def take(self, batch: Batch, worker: Hello) -> list[Work]:
        """Learn from a batch; returns the requests heard of for the first time."""
        known = self._keys_given
        for stream in batch.tokens:
            self._take_tokens(stream, worker)
        for record in batch.records:
            self._take_record(record, worker)
        fresh = [self._works[key] for key in range(known, self._keys_given)]
        while len(self._works) > _MAX_REQUESTS:
            self._drop(next(iter(self._works.values())))
        return fresh

    def left(self, worker: Hello) -> None:
        """The worker is gone; what of its streams is known is all, unless it comes back."""
        for work in self._works.values():
            if work.worker == worker.boot and work.done_at is None:
                work.done_at = work.last_at

    def __iter__(self) -> Iterator[Work]:
        return iter(self._works.values())

    def __len__(self) -> int:
        return len(self._works)

    def __getitem__(self, key: int) -> Work:
        return self._works[key]

    def running_before(self, at: float) -> bool:
        """Is a request known to run that was sent before `at`?"""
        return any(work.done_at is None and work.sent_at < at for work in self._works.values())

    def in_window(self, start: float, end: float, engines: frozenset[str]) -> tuple[list[RequestUse], dict[str, int]]:
        """Each request's use of start ≤ t < end, and the output millitokens of each engine."""
        chunks = self._chunks_within(start, end)
        uses, output_of = [], dict.fromkeys(engines, 0)
        for work in self._works.values():
            until = end if work.done_at is None else work.done_at
            if work.engine not in engines or work.sent_at >= end or until < start:
                continue
            output = work.output_millitokens(chunks.get(work.key, 0), start, end)
            output_of[work.engine] += round(output)
            uses.append(
                RequestUse(
                    key=work.key,
                    engine=work.engine,
                    millitokens=round(output + work.prompt_millitokens(start, end)),
                    overlap_us=round(max(0.0, min(until, end) - max(work.sent_at, start)) * 1e6),
                )
            )
        return uses, output_of

    def forget(self, works: list[Work], before: float) -> None:
        """Drop these requests, and all token times before `before`."""
        for work in works:
            self._drop(work)
        keep = [index for index, times in enumerate(self._times) if times[-1] >= before]
        self._times = [self._times[index] for index in keep]
        self._keys = [self._keys[index] for index in keep]

    def give_up_silent(self, now: float) -> None:
        """End the streams whose record will not come."""
        for work in self._works.values():
            if work.done_at is None and now - work.last_at > _SILENT_AFTER:
                work.done_at = work.last_at

    def _take_tokens(self, stream: TokenTimes, worker: Hello) -> None:
        times = np.frombuffer(stream.times, "<f8")
        if not len(times):
            return
        labels = (stream.engine, stream.model, stream.variant, stream.precision, stream.adapter)
        work = self._open(stream.id, stream.tenant, labels, worker, stream.sent_at)
        if work.first_token_at is None and stream.previous_at is None:
            work.first_token_at = float(times[0])
        work.last_at = float(times[-1])
        work.done_at = None
        self._times.append(times)
        self._keys.append(np.full(len(times), work.key, np.int64))

    def _take_record(self, record: RequestRecord, worker: Hello) -> None:
        sent_at, engine = record.sent_at, record.engine
        if sent_at is None or engine is None:
            return
        labels = (
            engine,
            record.model or NO_ADAPTER,
            record.variant or NO_ADAPTER,
            record.precision or NO_ADAPTER,
            record.adapter,
        )
        work = self._open(record.id, record.tenant, labels, worker, sent_at)
        done_at = record.ended_at if record.upstream_done_at is None else record.upstream_done_at
        work.last_at = work.done_at = max(done_at, sent_at)
        self._unrecorded.pop((worker.boot, record.id), None)
        work.first_token_at = record.first_token_at
        work.computed_prompt_tokens = max(0, (record.prompt_tokens or 0) - (record.cached_tokens or 0))
        work.output_tokens, work.token_chunks = record.output_tokens, record.token_chunks
        work.completed = record.outcome is Outcome.OK

    def _open(
        self, request_id: str, tenant: str, labels: tuple[str, str, str, str, str], worker: Hello, sent_at: float
    ) -> Work:
        work = self._unrecorded.get((worker.boot, request_id))
        if work is None:
            work = Work(self._keys_given, request_id, tenant, labels, worker.boot, sent_at, sent_at)
            self._keys_given += 1
            self._works[work.key] = self._unrecorded[worker.boot, request_id] = work
        return work

    def _drop(self, work: Work) -> None:
        self._works.pop(work.key, None)
        if self._unrecorded.get((work.worker, work.id)) is work:
            del self._unrecorded[work.worker, work.id]

    def _chunks_within(self, start: float, end: float) -> dict[int, int]:
        if not self._times:
            return {}
        times, keys = np.concatenate(self._times), np.concatenate(self._keys)
        found, counts = np.unique(keys[(times >= start) & (times < end)], return_counts=True)
        return dict(zip(found.tolist(), counts.tolist(), strict=True))


def _part_within(start: float, end: float, window_start: float, window_end: float) -> float:
    """The share of start … end that lies in the window; an instant lies wholly in one window."""
    if end <= start:
        return 1.0 if window_start <= start < window_end else 0.0
    return max(0.0, min(end, window_end) - max(start, window_start)) / (end - start)
