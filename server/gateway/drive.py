"""Runs a request's coroutine by the events it waits for: no task, and no turn of the loop between event and answer.

A task costs two turns of the event loop for each wait, and is what made a chunk or a short answer dear. Here the
callback that brings the last byte of an engine's answer goes on, in the same breath, with the code behind the `await`.
The price: what runs here has no current task, so `asyncio.timeout`, `asyncio.sleep` and `TaskGroup` must not be used in
it; futures, tasks (`await loop.create_task(...)`) and `Signal` may be awaited.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Generator
from typing import Any

__all__ = ["Drive", "Signal"]

_log = logging.getLogger("wattgate.gateway")


class Signal:
    """Something that happens once or again and that one coroutine waits for; `set` runs it on at once."""

    __slots__ = ("_drive", "_set")

    def __init__(self) -> None:
        self._drive: Drive | None = None
        self._set = False

    def set(self) -> None:
        """It happened: whoever waits goes on before this returns; who comes later does not wait."""
        drive = self._drive
        if drive is None:
            self._set = True
        else:
            self._drive = None
            drive.go_on()

    def clear(self) -> None:
        """Forget that it happened."""
        self._set = False

    def __await__(self) -> Generator[Signal, None, None]:
        if self._set:
            self._set = False
        else:
            yield self

    def attach(self, drive: Drive | None) -> None:
        """Who waits."""
        self._drive = drive


class Drive:
    """One coroutine under way. `start` runs it to its first wait; its events run it on."""

    __slots__ = ("_cancelled", "_coroutine", "_running", "_waits_for")

    def __init__(self, coroutine: Coroutine[Any, None, None]) -> None:
        self._coroutine: Coroutine[Any, None, None] | None = coroutine
        self._waits_for: Signal | asyncio.Future[Any] | None = None
        self._running = self._cancelled = False

    def start(self) -> None:
        """Run to the first wait, or to the end."""
        self._step(None)

    def go_on(self) -> None:
        """What was waited for is there."""
        self._waits_for = None
        self._step(None)

    def cancel(self) -> None:
        """Raise `CancelledError` where the coroutine waits, before this returns; without effect after its end.

        If the coroutine itself is running just now, it is raised at its next wait.
        """
        waits_for, self._waits_for = self._waits_for, None
        if self._running:
            self._cancelled = True
        elif waits_for is not None:
            if isinstance(waits_for, Signal):
                waits_for.attach(None)
            else:
                waits_for.remove_done_callback(self._future_done)
                waits_for.cancel()
            self._step(asyncio.CancelledError())

    def _future_done(self, future: asyncio.Future[Any]) -> None:
        if future is self._waits_for:
            self.go_on()

    def _step(self, error: BaseException | None) -> None:
        coroutine = self._coroutine
        if coroutine is None:
            return
        self._running = True
        try:
            waits_for = coroutine.send(None) if error is None else coroutine.throw(error)
            while self._cancelled:
                self._cancelled = False
                waits_for = coroutine.throw(asyncio.CancelledError())
        except StopIteration:
            self._coroutine = None
        except BaseException as exc:  # noqa: BLE001  # there is nobody above who could take it
            self._coroutine = None
            _log.critical("a request ended with an error that nobody took", exc_info=exc)
        else:
            self._waits_for = waits_for
            if type(waits_for) is Signal:
                waits_for.attach(self)
            else:  # a future announces so that it was awaited, not yielded
                waits_for._asyncio_future_blocking = False  # noqa: SLF001  # the protocol between futures and tasks
                waits_for.add_done_callback(self._future_done)
        finally:
            self._running = False
