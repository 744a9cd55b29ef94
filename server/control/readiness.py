"""Waits until a starting engine serves, and says what it is busy with."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from server.clock import Clock
from server.control.health import facts
from server.control.resolve import Resolved
from server.control.scrape import EngineClient
from server.engines import Engine
from server.engines.launchers import Exit, Running
from server.engines.log_file import last_lines, tail
from server.errors import StartError

__all__ = ["Readiness", "told_by_log"]

_POLL_S: Final = 0.2
_POLLS_BETWEEN_LOOKS: Final = 5
"""The log is looked at once a second."""
_LAST_WORDS: Final = 4000
_REPEAT_AFTER_S: Final = 10.0
"""A phase that lasts is said again."""


@dataclass(slots=True, kw_only=True)
class Readiness:
    """One start of one engine."""

    resolved: Resolved
    engine: Engine
    running: Running
    client: EngineClient
    clock: Clock
    announce: Callable[[str], None]
    not_yet: Callable[[], None]
    """Called after every look that found it not ready."""

    async def wait(self) -> dict[str, Any]:
        """What the engine says of itself, once it serves. Raises `StartError` after the settings' `ready_timeout_s`."""
        limit = self.resolved.settings.ready_timeout_s
        try:
            async with asyncio.timeout(limit):
                return await self._poll()
        except TimeoutError as exc:
            raise StartError(
                f"It was not ready within {limit:g} s. If it only needs longer, raise `ready_timeout_s`.{self._log()}"
            ) from exc

    async def _poll(self) -> dict[str, Any]:
        said, said_at, polls = "", 0.0, 0
        while True:
            if await self.client.healthy() and (told := await facts(self.client, self.resolved.upstream_model)):
                return told
            self.not_yet()
            if polls % _POLLS_BETWEEN_LOOKS == 0 and self.running.log is not None:
                phase = self.engine.phase(await asyncio.to_thread(tail, self.running.log))
                if phase != said or self.elapsed() - said_at >= _REPEAT_AFTER_S:
                    said, said_at = phase, self.elapsed()
                    self.announce(f"{self.resolved.settings.name}: starting, {said_at:.0f} s, {phase}")
            polls += 1
            await asyncio.sleep(_POLL_S)

    def elapsed(self) -> float:
        started = self.running.started_at
        return 0.0 if started is None else self.clock.monotonic() - started

    def _log(self) -> str:
        return "" if self.running.log is None else _quoted(self.running, tail(self.running.log))


def told_by_log(engine: Engine, running: Running, end: Exit, *, was_ready: bool) -> tuple[str, bool]:
    """Why an engine ended, in plain words with the log's last lines; and whether another start would end the same."""
    log = "" if running.log is None else tail(running.log)
    # The beginning explains a failed start; what ended a serving engine stands at the very end, if anywhere.
    why = engine.explain(log[-_LAST_WORDS:] if was_ready else log, killed_by=end.signal)
    when = "while it served" if was_ready else "before it was ready"
    text = f"It ended {end} {when}. {why or 'Its log may say why.'}"
    return text + _quoted(running, log), why is not None and why.permanent and not was_ready


def _quoted(running: Running, log: str) -> str:
    lines = last_lines(log)
    return f"\n  The last lines of {running.log}:\n{lines}" if lines else f" Its log {running.log} is empty."
