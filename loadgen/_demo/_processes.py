"""Child processes that never outlive their parent, and an interrupt that waits for a good moment."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import Final, Self

from loadgen._errors import LoadError

__all__ = ["Children", "InterruptedDemo", "last_lines"]

_POLL_S: Final = 0.1
_PR_SET_PDEATHSIG: Final = 1
"""Source: prctl(2)."""


class InterruptedDemo(Exception):  # noqa: N818 - no error: a person has had enough
    """Ctrl-C or SIGTERM has come."""


class Children:
    """Every process of the demo. As a context manager it takes SIGINT and SIGTERM and ends whatever still runs.

    A signal only leaves a mark; `pause` raises `InterruptedDemo` at the next good moment, so that no traceback can
    come from the middle of something. A second signal kills.
    """

    def __init__(self) -> None:
        self._running: list[tuple[subprocess.Popen[bytes], float]] = []
        self._signals = 0
        self._before: dict[int, object] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process, grace_s in reversed(self._running[:]):
            self.stop(process, grace_s)
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what `signal` itself returned

    def start(self, command: Sequence[str], *, log: Path, cwd: Path, grace_s: float) -> subprocess.Popen[bytes]:
        """Start `command` with its output in `log`; at the end it gets SIGTERM and, after `grace_s`, SIGKILL."""
        log.parent.mkdir(parents=True, exist_ok=True)
        try:
            with log.open("ab") as output:
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    cwd=cwd,
                    # A session of its own: the terminal's Ctrl-C reaches the demo alone, which stops in order.
                    start_new_session=True,
                    preexec_fn=_die_with_parent,  # noqa: PLW1509 - the demo has no threads that hold locks here
                )
        except OSError as exc:
            raise LoadError(f"Cannot start {command[0]}: {exc}.") from exc
        self._running.append((process, grace_s))
        return process

    def pause(self, seconds: float = _POLL_S) -> None:
        """Sleep; raises `InterruptedDemo` if a signal has come."""
        until = time.monotonic() + seconds
        while True:
            if self._signals:
                raise InterruptedDemo
            left = until - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(left, _POLL_S))

    def wait(self, process: subprocess.Popen[bytes], timeout_s: float, what: str) -> int:
        """The exit status. Raises `InterruptedDemo`, or `LoadError` after `timeout_s` (and then stops it)."""
        until = time.monotonic() + timeout_s
        while process.poll() is None:
            if time.monotonic() > until:
                self.stop(process, 0.0)
                raise LoadError(f"{what} did not end within {timeout_s:g} s and was stopped.")
            self.pause()
        self._running = [entry for entry in self._running if entry[0] is not process]
        return process.returncode

    def stop(self, process: subprocess.Popen[bytes], grace_s: float) -> None:
        """SIGTERM, a while, SIGKILL for its whole group."""
        signals = self._signals
        if process.poll() is None:
            process.terminate()
        until = time.monotonic() + grace_s
        while process.poll() is None and time.monotonic() < until and self._signals <= max(1, signals):
            time.sleep(_POLL_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        self._running = [entry for entry in self._running if entry[0] is not process]

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self._signals += 1


def _die_with_parent() -> None:
    """Even a demo that is killed outright leaves nothing behind."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def last_lines(log: Path, lines: int = 12) -> str:
    """The end of a log, for a person who must find out why."""
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return "\n".join(text.strip().splitlines()[-lines:])
