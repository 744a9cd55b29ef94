"""The latencies of one request, by their definitions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

from server.wire import Outcome, RequestRecord, TokenTimes

__all__ = ["DURATION", "ITL", "OVERHEAD", "QUEUE", "TPOT", "TTFT", "gaps", "is_inference", "observations"]

TTFT: Final = "wattgate_time_to_first_token_seconds"
ITL: Final = "wattgate_inter_token_latency_seconds"
TPOT: Final = "wattgate_time_per_output_token_seconds"
DURATION: Final = "wattgate_request_duration_seconds"
QUEUE: Final = "wattgate_queue_time_seconds"
OVERHEAD: Final = "wattgate_overhead_seconds"

_NO_INFERENCE = frozenset({"tokenize", "detokenize", "models", "health", "ready"})
"""Endpoints whose microseconds would drown the latencies of inference."""


def is_inference(record: RequestRecord) -> bool:
    """Did the request ask a model to compute?"""
    return record.endpoint not in _NO_INFERENCE


def observations(record: RequestRecord) -> Iterator[tuple[str, float]]:
    """Every (histogram, seconds) of a request; what is unknown or never happened is not yielded."""
    if not is_inference(record):
        return
    if record.sent_at is not None or record.queue_s > 0:  # also those who gave up waiting: they waited longest
        yield QUEUE, record.queue_s
    if record.first_token_at is not None:
        yield TTFT, record.first_token_at - record.received_at
    if record.outcome is not Outcome.OK:
        return
    yield DURATION, record.ended_at - record.received_at
    if record.first_token_at is not None and record.output_tokens is not None and record.output_tokens > 1:
        yield TPOT, (record.ended_at - record.first_token_at) / (record.output_tokens - 1)
    if record.sent_at is not None and record.upstream_done_at is not None and record.retries == 0:
        before = record.sent_at - record.received_at - record.queue_s
        yield OVERHEAD, before + record.ended_at - record.upstream_done_at


def gaps(stream: TokenTimes) -> npt.NDArray[np.float64]:
    """Times between a stream's chunks, the one to the last chunk of the batch before included."""
    times = np.frombuffer(stream.times, "<f8")
    if stream.previous_at is not None:
        times = np.concatenate([[stream.previous_at], times])
    return np.diff(times)
