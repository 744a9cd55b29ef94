"""One process to keep running, and whether it says that it serves."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import subprocess
import time
from dataclasses import dataclass, field
from typing import Final

from server.console import say
from server.launcher.descendants import die_with_parent
from server.launcher.events import Events

__all__ = ["Child", "how_it_ended"]

_FIRST_BACKOFF_S: Final = 0.1
_MAX_BACKOFF_S: Final = 10.0
_STEADY_AFTER_S: Final = 10.0
"""A child that ran this long starts again at once; one that ended sooner waits twice as long as before."""


@dataclass(slots=True, kw_only=True, eq=False)
class Child:
    """A plane. It is told `--ready-fd N` and writes a byte there once it serves."""

    name: str
    argv: tuple[str, ...]
    fds: tuple[int, ...]
    cores: tuple[int, ...]
    """Empty: wherever the launcher may run."""
    events: Events
    process: subprocess.Popen[bytes] | None = None
    ready: bool = False
    started_at: float = 0.0
    restart_at: float | None = None
    backoff_s: float = field(default=_FIRST_BACKOFF_S)

    @property
    def running(self) -> bool:
        return self.process is not None

    def start(self) -> None:
        """Start; where the machine does not let us (no memory, no process left), say so and try again later."""
        self.started_at = time.monotonic()
        ready, tell = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            # A session of its own: Ctrl-C in the terminal reaches the launcher only, which ends the others in order.
            self.process = subprocess.Popen(
                [*self.argv, "--ready-fd", str(tell)],
                pass_fds=(*self.fds, tell),
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                preexec_fn=functools.partial(_in_child, os.getpid(), self.cores),  # noqa: PLW1509  # one thread here
            )
        except (OSError, subprocess.SubprocessError) as exc:
            os.close(ready)
            say(f"{self.name} could not be started ({exc}); trying again")
            self.schedule_restart()
        else:
            self.ready, self.restart_at = False, None
            self.events.on_readable(ready, functools.partial(self._told, ready))
        finally:
            os.close(tell)

    def send(self, number: int) -> None:
        """Send a signal, if it runs."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid, number)

    def ended(self, status: int) -> None:
        """It was reaped; tell Popen, so that it does not try."""
        assert self.process is not None
        self.process.returncode = status
        self.process = None
        self.ready = False

    def schedule_restart(self) -> None:
        """Start it again: soon if it ran for long, else later and later."""
        now = time.monotonic()
        if now - self.started_at >= _STEADY_AFTER_S:
            self.backoff_s = _FIRST_BACKOFF_S
        self.restart_at = now + self.backoff_s
        self.backoff_s = min(2 * self.backoff_s, _MAX_BACKOFF_S)

    def _told(self, ready: int) -> None:
        """Its word, or the end of the pipe with its own end."""
        self.ready = bool(os.read(ready, 1)) and self.running
        self.events.forget(ready)
        os.close(ready)


def how_it_ended(status: int) -> str:
    """An exit status in words."""
    if status >= 0:
        return f"status {status}"
    known = {number.value: number.name for number in signal.Signals}  # real-time signals have no name
    return f"signal {known.get(-status, -status)}"


def _in_child(launcher: int, cores: tuple[int, ...]) -> None:
    die_with_parent(launcher)
    if cores:
        os.sched_setaffinity(0, cores)
