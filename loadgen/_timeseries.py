"""A run second by second: what was sent, answered, felt."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, Final

from loadgen._histogram import Histogram
from loadgen._record import Record

__all__ = ["BIN_S", "timeseries_of"]

BIN_S: Final = 1.0

_SCHEMA: Final = 2


class _Series:
    """Columns of equal length, one entry a second.

    Percentiles have no floor here: a column shows when something happened; it claims nothing about a tail.
    """

    def __init__(self, bins: int) -> None:
        self._bins = bins
        self._sent, self._ok, self._failed = [0] * bins, [0] * bins, [0] * bins
        self._output_tokens: list[float] = [0.0] * bins
        self._in_flight: list[float] = [0.0] * bins
        self._first_tokens = [Histogram() for _ in range(bins)]
        self._gaps = [Histogram() for _ in range(bins)]

    def add(self, record: Record) -> None:
        """A request counts where it was sent and where it ended, a first token and a gap where they arrived."""
        self._sent[self._bin(record.sent_s)] += 1
        (self._ok if record.ok else self._failed)[self._bin(record.ended_s)] += 1
        for at, tokens in record.tokens_at():
            self._output_tokens[self._bin(at)] += tokens
        if record.time_to_first_token_s is not None:
            self._first_tokens[self._bin(record.token_s[0])].add(record.time_to_first_token_s)
        for gap, (_, at) in zip(record.inter_chunk_latencies_s, pairwise(record.token_s), strict=True):
            self._gaps[self._bin(at)].add(gap)
        for number in range(self._bin(record.sent_s), self._bin(record.ended_s) + 1):
            begin, end = number * BIN_S, (number + 1) * BIN_S
            self._in_flight[number] += max(0.0, min(end, record.ended_s) - max(begin, record.sent_s)) / BIN_S

    def to_json(self) -> dict[str, Any]:
        return {
            "sent": self._sent,
            "ok": self._ok,
            "failed": self._failed,
            "output_tokens": self._output_tokens,
            "in_flight": self._in_flight,
            "ttft_samples": [found.count for found in self._first_tokens],
            "ttft_p50_s": _quantiles(self._first_tokens, 0.5),
            "ttft_p95_s": _quantiles(self._first_tokens, 0.95),
            "itl_p50_s": _quantiles(self._gaps, 0.5),
            "itl_p95_s": _quantiles(self._gaps, 0.95),
        }

    def _bin(self, at_s: float) -> int:
        return min(max(0, int(at_s / BIN_S)), self._bins - 1)


def timeseries_of(records: Sequence[Record]) -> dict[str, Any]:
    """Every request, warm-up and drain included, from the run's start to the last answer."""
    bins = max(1, math.ceil(max((record.ended_s for record in records), default=0.0) / BIN_S))
    models = dict.fromkeys(record.model for record in sorted(records, key=lambda record: record.index))
    return {
        "schema": _SCHEMA,
        "bin_s": BIN_S,
        "time_s": [number * BIN_S for number in range(bins)],
        "all": _series(records, bins),
        "models": {model: _series((record for record in records if record.model == model), bins) for model in models},
    }


def _series(records: Iterable[Record], bins: int) -> dict[str, Any]:
    series = _Series(bins)
    for record in records:
        series.add(record)
    return series.to_json()


def _quantiles(histograms: Sequence[Histogram], share: float) -> list[float | None]:
    return [histogram.quantile(share) for histogram in histograms]
