"""The client leaves: does the engine stop, and how soon."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from tests.benchmarks.probes.engine import Exchange
from tests.benchmarks.probes.ground import Cell, Ground, right_if
from tests.benchmarks.probes.wire import Wire
from tests.fakes.scripted_engine import head, role, token

__all__ = ["PROBES"]

_BOUND_MS: Final = 100.0
_WAIT_S: Final = 3.0
_ON_ITS_WAY_S: Final = 0.2
"""What the engine has sent has reached the gateway by then, whether or not it passes it on."""


async def _nothing(exchange: Exchange) -> None:
    return


async def _head_only(exchange: Exchange) -> None:
    exchange.stream_head()


async def _some_tokens(exchange: Exchange) -> None:
    exchange.stream_head()
    exchange.events(role(model="demo"), token(" tok", model="demo"), token(" tok", model="demo"))


async def _half_a_body(exchange: Exchange) -> None:
    exchange.send(head(200, (b"content-type", b"application/json"), (b"content-length", b"500")), b'{"id":"c-1",')


async def _leave(wire: Wire, exchange: Exchange) -> Cell:
    started = time.monotonic()
    wire.close()
    try:
        async with asyncio.timeout(_WAIT_S):
            await exchange.gone.wait()
    except TimeoutError:
        return Cell(False, f"runs on after {_WAIT_S:g} s")
    assert exchange.gone_at is not None
    took_ms = (exchange.gone_at - started) * 1e3
    return right_if(took_ms <= _BOUND_MS, f"{took_ms:.0f} ms")


async def before_headers_streamed(ground: Ground) -> Cell:
    """Client leaves before the headers, streamed"""
    async with ground.under_way(_nothing, stream=True) as (wire, exchange):
        return await _leave(wire, exchange)


async def before_headers_whole(ground: Ground) -> Cell:
    """Client leaves before the headers, whole answer"""
    async with ground.under_way(_nothing, stream=False) as (wire, exchange):
        return await _leave(wire, exchange)


async def before_first_token(ground: Ground) -> Cell:
    """Client leaves between headers and first token"""
    async with ground.under_way(_head_only, stream=True) as (wire, exchange):
        await asyncio.sleep(_ON_ITS_WAY_S)
        return await _leave(wire, exchange)


async def mid_stream(ground: Ground) -> Cell:
    """Client leaves mid-stream, engine silent"""
    async with ground.under_way(_some_tokens, stream=True) as (wire, exchange):
        await wire.read(lambda raw: raw.count(b" tok") >= 2)
        return await _leave(wire, exchange)


async def mid_body(ground: Ground) -> Cell:
    """Client leaves amid a whole answer"""
    async with ground.under_way(_half_a_body, stream=False) as (wire, exchange):
        await asyncio.sleep(_ON_ITS_WAY_S)
        return await _leave(wire, exchange)


PROBES: Final = (before_headers_streamed, before_headers_whole, before_first_token, mid_stream, mid_body)
