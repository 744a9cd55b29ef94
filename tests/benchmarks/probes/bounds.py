"""Too much, too many, too slow: refused within bounds of memory and time."""

from __future__ import annotations

import time
from typing import Final

from tests.benchmarks import processes
from tests.benchmarks.probes.engine import answer
from tests.benchmarks.probes.ground import Cell, Ground, right_if

__all__ = ["PROBES", "SLOW_PROBES"]

_OVERSIZE: Final = 16 << 20
_MAX_GROWTH_MB: Final = 12.0
_SLOW_S: Final = 65.0


async def oversize_body(ground: Ground) -> Cell:
    """Body of 16 MiB → 413, memory bounded"""
    ground.engine.begin(answer())
    before = processes.rss_bytes(ground.target.pids)
    most = 0.0
    start = ground.chat()[:-1] + b',"x":"'
    async with ground.wire() as wire:
        await wire.send(ground.head(length=len(start) + _OVERSIZE + 2) + start)
        for _ in range(_OVERSIZE >> 18):
            if not await wire.send(b"x" * (1 << 18)):
                break
            most = max(most, (processes.rss_bytes(ground.target.pids) - before) / 1e6)
            if (await wire.read(bool, 0.001)).raw or wire.closed:
                break
        else:
            await wire.send(b'"}')
        got = await wire.whole(10.0)
    right = got.status == 413 and most <= _MAX_GROWTH_MB and not ground.engine.exchanges
    return right_if(right, f"{got.shown}, +{most:.0f} MB")


async def long_header(ground: Ground) -> Cell:
    """A header of 256 KiB → 431"""
    got = await ground.ask_raw(ground.request(ground.chat(), "X-Long: " + "x" * (256 << 10)))
    asked = bool(ground.engine.exchanges)
    return right_if(got.status in {400, 431} and not asked, got.shown + (", engine asked" if asked else ""))


async def many_headers(ground: Ground) -> Cell:
    """2,000 headers → 431"""
    got = await ground.ask_raw(ground.request(ground.chat(), *(f"X-{number}: 1" for number in range(2000))))
    asked = bool(ground.engine.exchanges)
    return right_if(got.status in {400, 431} and not asked, got.shown + (", engine asked" if asked else ""))


async def slow_headers(ground: Ground) -> Cell:
    """Half a header is cut within 65 s"""
    return await _cut(ground, ground.head()[:-8])


async def slow_body(ground: Ground) -> Cell:
    """Half a body is cut within 65 s"""
    return await _cut(ground, ground.head(length=100) + b'{"model":')


async def _cut(ground: Ground, data: bytes) -> Cell:
    started = time.monotonic()
    async with ground.wire() as wire:
        await wire.send(data)
        got = await wire.read(lambda _: False, _SLOW_S)
    took = time.monotonic() - started
    return right_if(got.closed, f"{got.shown} after {took:.0f} s" if got.closed else f"open after {took:.0f} s")


PROBES: Final = (oversize_body, long_header, many_headers)
SLOW_PROBES: Final = (slow_headers, slow_body)
"""Run beside the others: they only wait."""
