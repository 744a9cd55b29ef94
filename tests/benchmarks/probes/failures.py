"""The engine refuses, fails or dies: what the client is told, and how often the engine is asked."""

from __future__ import annotations

import asyncio
from typing import Final

from tests.benchmarks.probes.engine import Exchange, answer
from tests.benchmarks.probes.ground import Cell, Ground, right_if
from tests.fakes.scripted_engine import role, token

__all__ = ["PROBES"]

_REFUSAL: Final = b'{"error":{"message":"too busy","type":"rate_limit_error","param":null,"code":429}}'
_COMPLAINT: Final = b'{"error":{"message":"max_tokens is too large","type":"BadRequestError","param":null,"code":400}}'
_MORE_ATTEMPTS_S: Final = 1.5


async def retry_after(ground: Ground) -> Cell:
    """Engine answers 429 with Retry-After: 7"""
    got = await ground.ask(ground.chat(), script=answer(_REFUSAL, 429, (b"retry-after", b"7")))
    await asyncio.sleep(_MORE_ATTEMPTS_S)
    attempts, passed_on = len(ground.engine.exchanges), got.headers.get("retry-after")
    right = attempts == 1 and got.status == 429 and passed_on == "7"
    return right_if(right, f"{got.shown}, {attempts} attempts, Retry-After {passed_on or 'lost'}")


async def complaint_passed_on(ground: Ground) -> Cell:
    """Engine answers 400: passed on as it is"""
    got = await ground.ask(ground.chat(), script=answer(_COMPLAINT, 400))
    attempts = len(ground.engine.exchanges)
    right = got.status == 400 and b"max_tokens is too large" in got.body and attempts == 1
    return right_if(right, f"{got.shown}, {attempts} attempts")


async def _dies_mid_stream(exchange: Exchange) -> None:
    exchange.stream_head()
    exchange.events(role(model="demo"), *(token(" tok", model="demo") for _ in range(3)))
    await asyncio.sleep(0.1)
    exchange.transport.abort()


async def death_mid_stream(ground: Ground) -> Cell:
    """Engine dies mid-stream"""
    ground.engine.begin(_dies_mid_stream)
    async with ground.wire() as wire:
        await wire.send(ground.request(ground.chat(stream=True)))
        got = await wire.read(lambda raw: raw.endswith(b"\r\n0\r\n\r\n"), 5.0)
    told, pretended = b'"error"' in got.body, b"[DONE]" in got.body
    seen = "error event" if told else "silent end" if got.body.endswith(b"0\r\n\r\n") else "cut off"
    seen = seen if got.closed or got.body.endswith(b"0\r\n\r\n") else "left hanging"
    return right_if(told and not pretended, seen + (", false [DONE]" if pretended else ""))


async def _dies_at_once(exchange: Exchange) -> None:
    exchange.transport.abort()


async def death_before_headers(ground: Ground) -> Cell:
    """Engine dies before its headers"""
    got = await ground.ask(ground.chat(), script=_dies_at_once)
    attempts = len(ground.engine.exchanges)
    right = got.status in {502, 503, 504} and got.error is not None and attempts <= 2
    form = "error object" if got.error is not None else "no error object"
    return right_if(right, f"{got.shown}, {attempts} attempts, {form}")


PROBES: Final = (complaint_passed_on, death_mid_stream, retry_after, death_before_headers)
