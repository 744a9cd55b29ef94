"""One round on one target: CPU by request and by chunk, latency, throughput, memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Final

from tests.benchmarks import processes
from tests.benchmarks.load import Counts, Load, Shape, chat_body, chat_request
from tests.benchmarks.rounds import percentile
from tests.benchmarks.targets import Target

__all__ = ["ROUND", "Sample", "WrongAnswersError", "measure_round"]

Sample = Mapping[str, float]
"""Figures of one round by name; a name ends with its unit."""

WHOLE: Final = Shape(connections=32)
STREAMS: Final = Shape(connections=32, chunks=64, pace_s=0.01)
ONE_WHOLE: Final = Shape(connections=1)
ONE_STREAM: Final = Shape(connections=1, chunks=8)
ROUND: Final = (WHOLE, STREAMS, ONE_WHOLE, ONE_STREAM)

_WARM_UP_S: Final = 0.5
_FINISH_S: Final = 10.0


class WrongAnswersError(Exception):
    """A target failed requests under a load that it should bear: its figures mean nothing."""


async def measure_round(target: Target, *, seconds: float) -> dict[str, float]:
    """Every measure once, each over so many seconds. Raises WrongAnswersError."""
    sample: dict[str, float] = {}
    for shape in ROUND:
        before, after, counts, wall = await _window(target, shape, seconds)
        if shape is WHOLE:
            sample["requests_per_s"] = counts.requests / wall
            sample |= _per("us_per_request", before, after, counts.requests)
        elif shape is STREAMS:
            sample["chunks_per_s"] = counts.chunks / wall
            sample |= _per("us_per_chunk", before, after, counts.chunks)
        else:
            what = "latency" if shape is ONE_WHOLE else "ttft"
            sample[f"{what}_p50_us"] = percentile(counts.latencies_ns, 50) / 1e3
            sample[f"{what}_p99_us"] = percentile(counts.latencies_ns, 99) / 1e3
    if target.pids:
        sample["rss_mb"] = processes.rss_bytes(target.pids) / 1e6
    return sample


async def _window(target: Target, shape: Shape, seconds: float) -> tuple[dict[str, int], dict[str, int], Counts, float]:
    """CPU by part before and after, what was done between, and how long that was, s."""
    load = Load(target.port, chat_request(target.port, chat_body(shape), api_key=target.api_key), shape)
    try:
        await load.open()
    except OSError as exc:
        raise WrongAnswersError(f"{target.name} does not listen: {exc}") from exc
    await asyncio.sleep(_WARM_UP_S)
    load.counts, warm = Counts(), load.counts
    before, started = _cpu(target), time.monotonic()
    await asyncio.sleep(seconds)
    after, counts, wall = _cpu(target), load.counts, time.monotonic() - started
    load.counts = Counts()
    await load.finish(_FINISH_S)
    failed = warm.failed + counts.failed + load.counts.failed
    if failed or not (counts.requests or counts.chunks):
        raise WrongAnswersError(f"{target.name}: {failed} of {counts.requests} requests failed ({shape})")
    return before, after, counts, wall


def _cpu(target: Target) -> dict[str, int]:
    return {part: processes.cpu_ns(pids) for part, pids in target.parts.items()}


def _per(unit: str, before: Mapping[str, int], after: Mapping[str, int], count: int) -> dict[str, float]:
    """CPU of all processes by request or chunk, and of each part where there are several."""
    if not before:
        return {}
    used = {part: (after[part] - before[part]) / 1e3 / count for part in before}
    parts = {f"{part}_{unit}": value for part, value in used.items()} if len(used) > 1 else {}
    return {f"cpu_{unit}": sum(used.values()), **parts}
