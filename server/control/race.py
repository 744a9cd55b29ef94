"""Waits for the first of several things and calls the others off."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

__all__ = ["first_of", "to_the_end"]

T = TypeVar("T")


async def first_of(*rivals: Coroutine[Any, Any, Any]) -> tuple[int, Any]:
    """Index and result of the first that ends (of several, the first given); the others are cancelled and awaited.

    Raises what that one raises. Cancelling this cancels all of them.
    """
    tasks = [asyncio.create_task(rival) for rival in rivals]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    winner = next(index for index, task in enumerate(tasks) if task in done)
    return winner, tasks[winner].result()


async def to_the_end(work: Coroutine[Any, Any, T]) -> tuple[T, asyncio.CancelledError | None]:
    """Await short work that must not stop half-way; whoever was cancelled meanwhile gets the cancellation to raise."""
    task = asyncio.create_task(work)
    try:
        return await asyncio.shield(task), None
    except asyncio.CancelledError as exc:
        if task.cancelled():
            raise
        return await task, exc
