"""Wattgate with 5,000 open streams in one worker: none lost, memory by stream, how late its event loop is."""

from __future__ import annotations

import argparse
import asyncio
import gc
import re
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import httpx
import uvloop

from tests.benchmarks import machine, processes
from tests.benchmarks.document import markdown_table, now, write_json, write_section
from tests.benchmarks.load import Load, Shape, chat_body, chat_request
from tests.benchmarks.mock_engine import OPEN_FILES, start_mock_engine
from tests.benchmarks.rounds import bucket_of, percentile
from tests.benchmarks.targets import Site, Target, free_port, start_target, wait_ready

__all__ = ["main"]

_PACE_S: Final = 0.5
_MAX_KB_A_STREAM: Final = 40.0
_MAX_LAG_MS: Final = 20.0
_NEVER_NS: Final = 10**12
_PING: Final = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
_LAG: Final = re.compile(
    r'^wattgate_event_loop_lag_seconds_bucket\{(?=[^}]*process="worker-0")[^}]*le="([^"]+)"[^}]*\} (\S+)', re.MULTILINE
)


async def _measure(target: Target, streams: int, seconds: float) -> dict[str, Any]:
    await _warm_up(target)
    worker = target.parts["worker"]
    rss, pss = processes.rss_bytes(worker), processes.pss_bytes(worker)
    shape = Shape(connections=streams, chunks=round(seconds / _PACE_S), pace_s=_PACE_S)
    load = Load(target.port, chat_request(target.port, chat_body(shape)), shape)
    started = time.monotonic()
    await load.open()
    opened_s = time.monotonic() - started
    load.running = False  # one stream each
    watch = asyncio.create_task(_watch(target))
    if opened_s > seconds / 2:
        raise RuntimeError(f"opening {streams} streams took {opened_s:.0f} s: they would not be open at once")
    await asyncio.sleep(seconds - opened_s - 2)
    watch.cancel()
    first, last, pings = await watch
    rss, pss = processes.rss_bytes(worker) - rss, processes.pss_bytes(worker) - pss
    await load.finish(60.0)
    counts = load.counts
    late = [abs(gap / 1e6 - _PACE_S * 1e3) for gap in counts.gaps_ns]
    return {
        "streams": streams,
        "opened_in_s": opened_s,
        "completed": counts.requests - counts.failed,
        "lost": streams - (counts.requests - counts.failed),
        "chunks_missing": streams * round(seconds / _PACE_S) - counts.chunks,
        "rss_kb_a_stream": rss / 1e3 / streams,
        "pss_kb_a_stream": pss / 1e3 / streams,
        "lag_p99_ms": bucket_of({le: last[le] - first[le] for le in last}, 0.99) * 1e3,
        "ping_p50_ms": percentile(pings, 50) / 1e6,
        "ping_p99_ms": percentile(pings, 99) / 1e6,
        "chunk_late_p99_ms": percentile(late, 99),
    }


async def _warm_up(target: Target) -> None:
    """Some streams before, so that what the first ones cost once is not counted."""
    shape = Shape(connections=50, chunks=8, pace_s=0.01)
    load = Load(target.port, chat_request(target.port, chat_body(shape)), shape)
    await load.open()
    await asyncio.sleep(1.0)
    await load.finish(10.0)
    await asyncio.sleep(1.0)


async def _watch(target: Target) -> tuple[dict[float, float], dict[float, float], list[int]]:
    """Until cancelled: the worker's lag buckets at first and last, and how long a trivial answer of it took, ns."""
    buckets: list[dict[float, float]] = []
    pings: list[int] = []
    tasks = [asyncio.create_task(_scrape(target, buckets)), asyncio.create_task(_ping(target, pings))]
    try:
        await asyncio.gather(*tasks)
    except asyncio.CancelledError:
        for task in tasks:
            task.cancel()
    return buckets[0], buckets[-1], pings or [_NEVER_NS]


async def _scrape(target: Target, buckets: list[dict[float, float]]) -> None:
    assert target.metrics_url is not None
    async with httpx.AsyncClient() as client:
        while True:
            text = (await client.get(target.metrics_url, timeout=10)).text
            buckets.append({float(le): float(count) for le, count in _LAG.findall(text)})
            await asyncio.sleep(1.0)


async def _ping(target: Target, pings: list[int]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", target.port)
    while True:
        sent = time.perf_counter_ns()
        writer.write(_PING)
        await reader.read(1 << 16)
        pings.append(time.perf_counter_ns() - sent)
        await asyncio.sleep(0.01)


def _verdict(found: Mapping[str, Any]) -> list[str]:
    """What is out of bounds."""
    checks = {
        f"{found['lost']} streams lost, {found['chunks_missing']} chunks missing": (
            found["lost"] or found["chunks_missing"]
        ),
        f"more than {_MAX_KB_A_STREAM:g} KB a stream": found["rss_kb_a_stream"] > _MAX_KB_A_STREAM,
        f"event loop more than {_MAX_LAG_MS:g} ms late": found["lag_p99_ms"] > _MAX_LAG_MS,
    }
    return [text for text, wrong in checks.items() if wrong]


def _as_markdown(found: Mapping[str, Any], wrong: list[str]) -> str:
    rows = [
        ["streams open at once", f"{found['streams']:,}"],
        ["lost", f"{found['lost']:,} (chunks missing: {found['chunks_missing']:,})"],
        ["worker RSS a stream", f"{found['rss_kb_a_stream']:.1f} KB (PSS {found['pss_kb_a_stream']:.1f} KB)"],
        ["event loop lag p99, by the worker's histogram", f"at most {found['lag_p99_ms']:g} ms"],
        ["a trivial answer of the worker, p50 / p99", f"{found['ping_p50_ms']:.1f} / {found['ping_p99_ms']:.1f} ms"],
        ["chunks early or late at the client, p99", f"{found['chunk_late_p99_ms']:.1f} ms"],
    ]
    verdict = "Within bounds." if not wrong else "Out of bounds: " + "; ".join(wrong) + "."
    return "\n\n".join([f"{now()}, commit {machine.describe()['commit']}.", markdown_table(["", ""], rows), verdict])


def main() -> int:
    """Measure; the exit status is 1 where something is out of bounds."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--streams", type=int, default=5000)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--tree", default="", help="folder of another checkout")
    parser.add_argument("--write", action="store_true", help="write results/scale.json and docs/benchmarks.md")
    options = parser.parse_args()
    machine.raise_open_files(OPEN_FILES)
    machine.stay_on_load_core()
    gc.freeze()
    with tempfile.TemporaryDirectory(prefix="wattgate-scale-") as folder:
        port = free_port()
        engine = start_mock_engine(Path(folder, "engine"), port=port, core=machine.LOAD_CORE)
        target: Target | None = None
        try:
            wait_ready(Target(name="mock engine", port=port, process=engine))
            site = Site(folder=Path(folder), cache=Path(), engine=port, core=machine.GATEWAY_CORE)
            target = start_target(f"ours@{options.tree}" if options.tree else "ours", site)
            found = uvloop.run(_measure(target, options.streams, options.seconds))
        finally:
            if target is not None:
                target.stop()
            processes.end(engine)
    wrong = _verdict(found)
    text = _as_markdown(found, wrong)
    print(text)
    if options.write:
        write_json("scale", {"machine": machine.describe(), **found, "out_of_bounds": wrong})
        write_section("scale", text)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
