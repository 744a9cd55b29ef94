"""Figures of a run that still goes, each record read once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeVar

import gevent

from loadgen._energy import EnergyReport
from loadgen._histogram import Histogram
from loadgen._record import Record
from loadgen._slo import Slo
from loadgen._statistics import Distribution
from loadgen._summary import ALL
from loadgen._ui._joules import joules_per_token, total_joules_per_token
from loadgen._ui._row import Row

__all__ = ["SoFar"]

_AT_ONCE: Final = 4
"""Records between two turns of other greenlets, 0.2 ms each with 64 tokens: a look must not make the generator late."""

_Number = TypeVar("_Number", int, float)


class SoFar:
    """Counts in histograms: figures are within their error of 0.5 %, with the floors of summary.json.

    The window begins with the end of the warm-up and ends with the last answer that has come. Whether the generator
    was itself too slow is judged once the run is over.
    """

    def __init__(self, slo: Slo, *, warm_up_s: float, take_turns: Callable[[], None] | None = None) -> None:
        self._slo = slo
        self._warm_up_s = warm_up_s
        self._take_turns = take_turns or gevent.sleep
        self._seen = 0
        self._looking = False
        self._until_s = 0.0
        self._models: dict[str, _Part] = {}

    def look(self, records: Sequence[Record]) -> None:
        """`records` are all that have come; a look that comes during another one leaves it at that."""
        if self._looking:
            return
        self._looking = True
        try:
            end = len(records)
            while self._seen < end:
                for record in records[self._seen : min(end, self._seen + _AT_ONCE)]:
                    self._seen += 1
                    self._add(record)
                self._take_turns()
        finally:
            self._looking = False

    def rows(self, energy: EnergyReport | None) -> Iterator[Row]:
        """One a model, and their total; none before the first record."""
        total, length_s = _Part(self._slo, self._warm_up_s), max(0.0, self._until_s - self._warm_up_s)
        for model, part in self._models.items():
            yield part.row(model, length_s, joules_per_token(energy, model, part.served_by))
            total.merge(part)
        if self._models:
            yield total.row(ALL, length_s, total_joules_per_token(energy))

    def _add(self, record: Record) -> None:
        self._until_s = max(self._until_s, record.ended_s)
        if record.model not in self._models:
            self._models[record.model] = _Part(self._slo, self._warm_up_s)
        self._models[record.model].add(record)


class _Part:
    """What the records of one model, or of all, add up to."""

    def __init__(self, slo: Slo, start_s: float) -> None:
        self._slo = slo
        self._start_s = start_s
        self._requests = self._ok = 0
        self._first_token, self._gap, self._per_token = Histogram(), Histogram(), Histogram()
        self._tokens: float | None = 0.0
        """That arrived in the window; None: unknown of some answers."""
        self._met: int | None = 0
        """Measured requests that kept the SLO."""
        self._good: int | None = 0
        """Answers that kept it and ended in the window."""
        self._good_tokens: int | None = 0
        self.served_by: set[str] = set()

    def add(self, record: Record) -> None:
        self._tokens = _plus(self._tokens, _tokens_since(record, self._start_s))
        if self._slo:
            self._judge(record, self._slo.met(record))
        if record.warm_up:
            return
        self._requests += 1
        if record.ok:
            self._measure(record)

    def merge(self, other: _Part) -> None:
        self._requests += other._requests
        self._ok += other._ok
        for mine, its in zip(self._histograms(), other._histograms(), strict=True):
            mine.merge(its)
        self._tokens = _plus(self._tokens, other._tokens)
        self._met, self._good = _plus(self._met, other._met), _plus(self._good, other._good)
        self._good_tokens = _plus(self._good_tokens, other._good_tokens)

    def row(self, model: str, length_s: float, joules: float | None) -> Row:
        first_token, gap, per_token = map(Distribution.of_histogram, self._histograms())
        return Row(
            model=model,
            requests=self._requests,
            ok=self._ok,
            errors=self._requests - self._ok,
            ttft_p50_s=first_token.p50,
            ttft_p95_s=first_token.p95,
            itl_p95_s=gap.p95,
            tpot_p50_s=per_token.p50,
            tpot_p95_s=per_token.p95,
            attainment=self._by(self._met, self._requests),
            good_requests_per_s=self._by(self._good, length_s),
            good_output_tokens_per_s=self._by(self._good_tokens, length_s),
            output_tokens_per_s=_by(self._tokens, length_s),
            joules_per_output_token=joules,
        )

    def _histograms(self) -> tuple[Histogram, Histogram, Histogram]:
        return self._first_token, self._gap, self._per_token

    def _measure(self, record: Record) -> None:
        self._ok += 1
        if record.served_by:
            self.served_by.add(record.served_by)
        if record.time_to_first_token_s is not None:
            self._first_token.add(record.time_to_first_token_s)
        for gap in record.inter_token_latencies_s:
            self._gap.add(gap)
        if record.time_per_output_token_s is not None:
            self._per_token.add(record.time_per_output_token_s)

    def _judge(self, record: Record, met: bool | None) -> None:
        if not record.warm_up:
            self._met = _plus(self._met, None if met is None else int(met))
        if record.ok and record.ended_s >= self._start_s:
            self._good = _plus(self._good, None if met is None else int(met))
            self._good_tokens = _plus(self._good_tokens, record.output_tokens if met else 0)

    def _by(self, good: int | None, amount: float) -> float | None:
        """As in summary.json goodput is known as a whole or not at all."""
        if not self._slo or self._met is None or self._good is None:
            return None
        return _by(good, amount)


def _tokens_since(record: Record, start_s: float) -> float | None:
    """A failure's tokens are unknown, as a rule, and count as none; a whole answer's may not be guessed."""
    if record.ok and record.output_tokens is None:
        return None
    return record.output_tokens_between(start_s, float("inf"))


def _plus(left: _Number | None, right: _Number | None) -> _Number | None:
    return None if left is None or right is None else left + right


def _by(value: float | None, amount: float) -> float | None:
    return value / amount if value is not None and amount > 0 else None
