"""Runs what the path runs, as the path does, for a test that is a task."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from server.gateway.drive import Drive

__all__ = ["driven"]

T = TypeVar("T")


async def driven(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that a `Drive` runs; cancelling this cancels it."""
    done: asyncio.Future[T] = asyncio.get_running_loop().create_future()

    async def run() -> None:
        try:
            result = await coroutine
        except asyncio.CancelledError:
            done.cancel()
        except Exception as exc:  # noqa: BLE001  # handed on to the test
            done.set_exception(exc)
        else:
            if not done.done():
                done.set_result(result)

    drive = Drive(run())
    drive.start()
    try:
        return await done
    finally:
        drive.cancel()
