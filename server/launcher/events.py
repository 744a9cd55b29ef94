"""What the launcher waits for: signals and descriptors, in one place."""

from __future__ import annotations

import os
import selectors
import signal
from collections.abc import Callable
from typing import Final

__all__ = ["Events"]

_SIGNALS: Final = (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Events:
    """Signals are noted; a readable descriptor calls what was given for it."""

    def __init__(self) -> None:
        """Handles the signals of this process from now on."""
        self._selector = selectors.DefaultSelector()
        self.stops = 0
        """How often somebody asked to stop."""
        self.reload_wanted = False
        """Somebody asked for a reload; set it back."""
        self._wake, self._woken = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        # Under `nohup` the end of the terminal means nothing.
        self._terminal = _has_terminal() and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN
        for number in _SIGNALS:
            signal.signal(number, lambda *_: None)
        signal.set_wakeup_fd(self._woken, warn_on_full_buffer=False)
        self.on_readable(self._wake, self._take_signals)

    def on_readable(self, descriptor: int, call: Callable[[], None]) -> None:
        """Call whenever there is something to read, until it is forgotten."""
        self._selector.register(descriptor, selectors.EVENT_READ, call)

    def forget(self, descriptor: int) -> None:
        """Before it is closed."""
        self._selector.unregister(descriptor)

    def wait(self, timeout_s: float) -> None:
        """Until something has happened, and was told to whoever wanted to know, or the time is over."""
        for key, _ in self._selector.select(max(0.0, timeout_s)):
            key.data()

    def _take_signals(self) -> None:
        for number in os.read(self._wake, 4096):
            # A terminal that goes away sends SIGHUP, too: then it means a stop.
            if number == signal.SIGHUP and not (self._terminal and not _has_terminal()):
                self.reload_wanted = True
            elif number != signal.SIGCHLD:
                self.stops += 1


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True
