"""Batches of requests that differ in one thing only: precision, adapter, nothing at all, or where they are cut."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Final

from tests.benchmarks.energy_load import Ask, Client, exact_prompt, together

__all__ = ["TWINS", "comparisons", "send_batch"]

_STREAMS: Final = 4
TWINS: Final = 8
_PROMPT: Final = 48
_OUTPUT: Final = 96
_LONG: Final = 160
_CUT: Final = 64
_PLUG: Final = 240
_PLUG_AHEAD_S: Final = 0.02


async def send_batch(client: Client, asks: Sequence[Ask], chance: random.Random) -> None:
    """At once, and wait until all have ended."""
    if asks[0].group == "twins":
        await _behind_a_plug(client, asks, chance)
    else:
        await together(client, asks)


async def _behind_a_plug(client: Client, asks: Sequence[Ask], chance: random.Random) -> None:
    """All of them in one batch from the first step on: they arrive while a long prompt is being computed.

    Else the first to arrive would compute its prompt alone, which costs more, and would be charged for it.
    """
    plug = Ask(model=asks[0].model, prompt=exact_prompt(chance, _PLUG), max_tokens=1, group="plug")
    running = asyncio.create_task(client.send(plug))
    await asyncio.sleep(_PLUG_AHEAD_S)
    await together(client, asks)
    await running


def comparisons(count: int, chance: random.Random) -> list[list[Ask]]:
    """Each is sent at once, after the one before has ended; those of one number follow one another, in random order."""
    found: list[list[Ask]] = []
    for block in range(count):
        parts = [*_precision(block, chance), *_adapters(block, chance), _twins(block, chance)]
        parts += _cancelled(block, chance)
        chance.shuffle(parts)
        found += parts
    return found


def _precision(block: int, chance: random.Random) -> list[list[Ask]]:
    prompts = [exact_prompt(chance, _PROMPT) for _ in range(_STREAMS)]
    return [
        [
            Ask(model=f"demo:{role}", prompt=each, max_tokens=_OUTPUT, group="precision", block=block, role=role)
            for each in prompts
        ]
        for role in ("bf16", "int8")
    ]


def _adapters(block: int, chance: random.Random) -> list[list[Ask]]:
    def some(model: str, role: str, count: int) -> list[Ask]:
        return [
            Ask(
                model=model,
                prompt=exact_prompt(chance, _PROMPT),
                max_tokens=_OUTPUT,
                group="adapters",
                block=block,
                role=role,
            )
            for _ in range(count)
        ]

    half = _STREAMS // 2
    return [
        some("demo:bf16", "base", _STREAMS),
        some("json:bf16", "adapter", _STREAMS),
        some("demo:bf16", "mixed base", half) + some("json:bf16", "mixed adapter", half),
    ]


def _twins(block: int, chance: random.Random) -> list[Ask]:
    model = ("demo:bf16", "demo:int8")[block % 2]
    return [
        Ask(model=model, prompt=exact_prompt(chance, _PROMPT), max_tokens=_OUTPUT, group="twins", block=block)
        for _ in range(TWINS)
    ]


def _cancelled(block: int, chance: random.Random) -> list[list[Ask]]:
    """Cut off; one that was to be as short from the start; and a whole one.

    One after the other, not beside each other: who stays would pay alone for what both shared before.
    """
    return [
        [
            Ask(
                model="demo:bf16",
                prompt=exact_prompt(chance, _PROMPT),
                max_tokens=length,
                group="cancelled",
                block=block,
                role=role,
                leave_after=leave_after,
            )
        ]
        for role, length, leave_after in (("whole", _LONG, None), ("short", _CUT, None), ("cut", _LONG, _CUT))
    ]
