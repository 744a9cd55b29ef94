"""The health of one replica: who gets requests, who is ejected, who comes back, and when.

    READY ──a missed check, a failed request──▶ SUSPECT ──calm for 5 s──▶ READY
    READY, SUSPECT ──────────ejected──────────▶ UNHEALTHY
    STARTING ──a check answered──▶ READY
    UNHEALTHY ──backoff over, a check answered──▶ asked for a token, or HALF_OPEN: a few requests as a trial
    the token came; HALF_OPEN ──an answer, or 5 s without a failure──▶ READY
    no token came; HALF_OPEN ──a missed check, a failed request──▶ UNHEALTHY, for twice as long (1 s … 30 s)

What ejects:

    three checks in a row missed, or one while requests fail, too
    five failed requests in a row, over all workers, with no answer between them
    half of at least ten attempts in 10 s failed, 500s too, unless no other replica serves the same
    a hang (`hang.py`)

429 and 503 are no failures: who refuses lives. The backoff begins anew once a replica was well for a minute, so one
that comes and goes is away for longer each time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from server.clock import Clock
from server.fleet import SERVING, Ejection, EngineState
from server.units import Seconds

__all__ = ["Breaker"]

_MISSES: Final = 3
_FAILURES_IN_A_ROW: Final = 5
_WINDOW: Final = Seconds(10.0)
_ATTEMPTS_TO_JUDGE: Final = 10
_BAD_SHARE: Final = 0.5
_CALM: Final = Seconds(5.0)
_TRIAL: Final = Seconds(5.0)
_FIRST_BACKOFF: Final = Seconds(1.0)
_MAX_BACKOFF: Final = Seconds(30.0)
_WELL: Final = Seconds(60.0)


class Breaker:
    """A state and what moves it. It asks nobody and waits for nothing: others tell it what happened."""

    def __init__(self, clock: Clock, state: EngineState, *, others_serve: Callable[[], bool]) -> None:
        """`state`: STARTING if it was never seen, else READY."""
        self._clock = clock
        self._others_serve = others_serve
        self.state = state
        self.reason: Ejection | None = None
        """Of the last ejection."""
        self.problem: str | None = None
        """What it is suspected of or ejected for, without advice; changes only with `state`."""
        self._misses = 0
        self._failures = 0
        """In a row."""
        self._window: deque[tuple[Seconds, int, int]] = deque()
        """(when, attempts, failed)"""
        self._answered_at = self._troubled_at = self._since = clock.monotonic()
        self._well_since = self._since if state in SERVING else None
        """When it last came back; None: it never served."""
        self._backoff = Seconds(0.0)

    @property
    def silent_for(self) -> Seconds:
        """Since when it has answered no check, though asked."""
        return Seconds(self._clock.monotonic() - self._answered_at if self._misses else 0.0)

    @property
    def may_be_tried(self) -> bool:
        """Ejected, its backoff over, and its last check answered."""
        over = self._clock.monotonic() - self._since >= self._backoff
        return self.state is EngineState.UNHEALTHY and over and self._misses == 0

    def checked(self, answered: bool) -> None:
        """A health check ended."""
        if answered:
            self._misses, self._answered_at = 0, self._clock.monotonic()
            self._settle()
            return
        self._misses += 1
        self._troubled_at = self._clock.monotonic()
        fails_too = self._failures > 0
        if self._misses >= _MISSES or fails_too or self.state is EngineState.HALF_OPEN:
            self.eject(Ejection.SILENT, "It does not answer its health check.")
        elif self.state is EngineState.READY:
            self._become(EngineState.SUSPECT, "It did not answer its last health check.")

    def reported(self, *, answered: int, failed: int, erred: int = 0) -> None:
        """A worker tells how its attempts went since it last told; `erred`: by an error that a request may have caused.

        Those count for the share of failures only, so that one client's bad requests take no last replica away.
        """
        if self.state not in SERVING or not answered + failed + erred:
            return
        now = self._clock.monotonic()
        self._window.append((now, answered + failed + erred, failed + erred))
        while self._window[0][0] < now - _WINDOW:
            self._window.popleft()
        self._failures = self._failures + failed if not answered else 0
        if failed or erred:
            self._troubled_at = now
            self._judge_failures()
        elif self.state is EngineState.HALF_OPEN:
            self._become(EngineState.READY)

    def eject(self, reason: Ejection, problem: str) -> None:
        """Give it no requests until it has shown that it works."""
        if self.state is EngineState.UNHEALTHY:
            return
        was_well = self._well_since is not None and self._clock.monotonic() - self._well_since >= _WELL
        self._backoff = _FIRST_BACKOFF if was_well or not self._backoff else self._longer()
        self.reason = reason
        self._become(EngineState.UNHEALTHY, problem)

    def on_trial(self) -> None:
        """It may be well: let a few requests find out."""
        self._become(EngineState.HALF_OPEN, "It was ejected and seems well again: it gets a few requests as a trial.")

    def proved(self) -> None:
        """It has shown that it works."""
        self._become(EngineState.READY)

    def disproved(self) -> None:
        """It could not show it: it stays ejected, for longer."""
        self._backoff = self._longer()
        self._since = self._clock.monotonic()

    def _judge_failures(self) -> None:
        attempts = sum(count for _, count, _ in self._window)
        failed = sum(count for _, _, count in self._window)
        in_a_row = self._failures >= _FAILURES_IN_A_ROW
        too_many = attempts >= _ATTEMPTS_TO_JUDGE and failed >= _BAD_SHARE * attempts and self._others_serve()
        if in_a_row or too_many or (self.state is EngineState.HALF_OPEN and self._failures):
            self.eject(Ejection.FAILURES, f"{failed} of the last {attempts} requests to it failed.")
        elif self.state is EngineState.READY:
            self._become(EngineState.SUSPECT, f"{failed} of the last {attempts} requests to it failed.")

    def _settle(self) -> None:
        """A check was answered: what was open may be over."""
        now = self._clock.monotonic()
        calm = self.state is EngineState.SUSPECT and now - self._troubled_at >= _CALM
        tried = self.state is EngineState.HALF_OPEN and now - self._since >= _TRIAL
        if calm or tried or self._well_since is None:
            self._become(EngineState.READY)

    def _longer(self) -> Seconds:
        return Seconds(min(2 * self._backoff, _MAX_BACKOFF))

    def _become(self, state: EngineState, problem: str | None = None) -> None:
        was, self._since = self.state, self._clock.monotonic()
        self.state, self.problem = state, problem
        if state is EngineState.READY and was is not EngineState.SUSPECT:
            self._well_since = self._since
        if state is not EngineState.SUSPECT:
            self._failures = 0
            self._window.clear()
