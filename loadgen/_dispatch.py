"""Sends a schedule: every request at its time, whatever the answers do."""

from __future__ import annotations

from collections import deque
from typing import Final

import gevent
from gevent.event import Event
from gevent.pool import Group

from loadgen._client import Client, Letter
from loadgen._run import Run

__all__ = ["dispatch"]

_AHEAD: Final = 256
"""Requests written before their time: a burst needs them at once, and a text costs some 100 µs."""
_IDLE_S: Final = 0.003
"""Requests are written ahead only while nothing is due for that long."""
_TIMER_S: Final = 0.0012
"""libev waits in whole milliseconds, rounded up; the rest is waited for in turns of the loop."""


def dispatch(client: Client, run: Run, stopping: Event) -> None:
    """Send every request when it is due, until the schedule ends or `stopping` is set; then drain."""
    under_way = Group()
    letters = _Letters(client, run)
    try:
        while (letter := letters.next()) is not None:
            if not _wait_until(letter.job.scheduled_s, run, stopping):
                break
            if len(under_way) >= run.max_in_flight:
                run.dropped += 1
            else:
                under_way.spawn(client.send, letter)
                # It begins in the next turn of the loop: before another is written.
                gevent.sleep(0)
        run.end()
        under_way.join()
    finally:
        under_way.kill()


class _Letters:
    """The run's requests, written ahead."""

    def __init__(self, client: Client, run: Run) -> None:
        self._client, self._run = client, run
        self._jobs = run.jobs()
        self._ready: deque[Letter] = deque()

    def next(self) -> Letter | None:
        while len(self._ready) < _AHEAD and (not self._ready or self._idle()):
            job = next(self._jobs, None)
            if job is None:
                break
            self._ready.append(self._client.letter(job))
            # Answers that have come meanwhile are not to wait for all of them.
            gevent.sleep(0)
        return self._ready.popleft() if self._ready else None

    def _idle(self) -> bool:
        return self._ready[0].job.scheduled_s - self._run.now_s() > _IDLE_S


def _wait_until(due_s: float, run: Run, stopping: Event) -> bool:
    """False if the run is to stop."""
    coarse_s = due_s - run.now_s() - _TIMER_S
    if coarse_s > 0 and stopping.wait(coarse_s):
        return False
    while not stopping.is_set():
        if run.now_s() >= due_s:
            return True
        # A turn of the loop: answers that have come are read meanwhile.
        gevent.sleep(0)
    return False
