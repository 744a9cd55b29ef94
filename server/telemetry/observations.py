"""The latencies of requests, by their definitions, many at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from operator import attrgetter
from typing import Final

import numpy as np
import numpy.typing as npt

from server.wire import RequestRecord

__all__ = ["DURATION", "ITL", "LAG", "OVERHEAD", "QUEUE", "TPOT", "TTFT", "Columns", "Flags", "is_inference"]

TTFT: Final = "wattgate_time_to_first_token_seconds"
ITL: Final = "wattgate_inter_token_latency_seconds"
TPOT: Final = "wattgate_time_per_output_token_seconds"
DURATION: Final = "wattgate_request_duration_seconds"
QUEUE: Final = "wattgate_queue_time_seconds"
OVERHEAD: Final = "wattgate_overhead_seconds"
LAG: Final = "wattgate_event_loop_lag_seconds"

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

_NO_INFERENCE = frozenset({"tokenize", "detokenize", "count_tokens", "models", "health", "ready"})
"""Endpoints whose microseconds would drown the latencies of inference."""

_NUMBERS = attrgetter(
    "received_at",
    "queue_s",
    "sent_at",
    "first_token_at",
    "upstream_done_at",
    "ended_at",
    "retries",
    "prompt_tokens",
    "cached_tokens",
    "output_tokens",
    "token_chunks",
)


def is_inference(endpoint: str) -> bool:
    """Do requests to it ask a model to compute?"""
    return endpoint not in _NO_INFERENCE


class Columns:
    """The numbers of some records, an array each; NaN is unknown, or never happened."""

    def __init__(self, records: Sequence[RequestRecord]) -> None:
        table: Floats = np.array([_NUMBERS(record) for record in records], np.float64).T.copy()
        self.received_at, self.queue_s, self.sent_at, self.first_token_at, self.upstream_done_at = table[:5]
        self.ended_at, self.retries, self.prompt_tokens, self.cached_tokens, self.output_tokens = table[5:10]
        self.token_chunks = table[10]

    def observations(self, inference: Flags, ok: Flags) -> Iterator[tuple[str, Flags, Floats]]:
        """Every histogram, the records that are observed in it, and the seconds of all of them (of others: NaN).

        `inference` and `ok` say of each record whether it asked a model to compute, and whether it was completed.
        """
        sent, done = ~np.isnan(self.sent_at), inference & ok
        # Also those who gave up waiting: they waited longest.
        yield QUEUE, inference & (sent | (self.queue_s > 0)), self.queue_s
        first = inference & ~np.isnan(self.first_token_at)
        yield TTFT, first, self.first_token_at - self.received_at
        yield DURATION, done, self.ended_at - self.received_at
        several = self.output_tokens > 1
        others = np.where(several, self.output_tokens - 1, np.nan)
        yield TPOT, done & first & several, (self.ended_at - self.first_token_at) / others
        before = self.sent_at - self.received_at - self.queue_s
        unretried = sent & ~np.isnan(self.upstream_done_at) & (self.retries == 0)
        yield OVERHEAD, done & unretried, before + self.ended_at - self.upstream_done_at
