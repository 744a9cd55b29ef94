"""Where `wattgate reload` asks for another plan, and hears how it goes.

A Unix socket in the private runtime folder; lines of JSON. One visitor at a time:

    launcher → visitor   {"pid": …, "plan": the running plan's path}    or {"busy": true}
    visitor → launcher   the new plan's path
    launcher → visitor   {"say": …} … {"status": 0 or 1}
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from server.launcher.events import Events
from server.launcher.sockets import unix_listener

__all__ = ["Desk"]

_PATIENCE_S: Final = 1.0
"""Longest that a visitor who does not read or write may hold up the launcher."""
_MAX_LINE: Final = 4096


class Desk:
    """`wanted` is the path of a plan that somebody asked for; set it to None when it is done."""

    def __init__(self, path: Path, events: Events, *, current: Callable[[], Path]) -> None:
        self.wanted: Path | None = None
        self._events = events
        self._current = current
        self._visitor: socket.socket | None = None
        self._listener = unix_listener(path)
        events.on_readable(self._listener.fileno(), self._welcome)

    def say(self, message: str) -> None:
        """Tell the visitor, if somebody is there."""
        self._write({"say": message})

    def finish(self, status: int) -> None:
        """The last word on what was wanted."""
        self._write({"status": status})
        self.wanted = None
        self._goodbye()

    def _welcome(self) -> None:
        connection, _ = self._listener.accept()
        connection.settimeout(_PATIENCE_S)
        if self._visitor is not None or self.wanted is not None:
            with contextlib.suppress(OSError), connection:
                connection.sendall(b'{"busy": true}\n')
            return
        self._visitor = connection
        self._events.on_readable(connection.fileno(), self._listen)
        self._write({"pid": os.getpid(), "plan": str(self._current())})

    def _listen(self) -> None:
        assert self._visitor is not None
        line = b""
        with contextlib.suppress(OSError):
            line = self._visitor.recv(_MAX_LINE)
        if not line:
            self._goodbye()
        elif self.wanted is None:
            self.wanted = Path(line.decode().strip())

    def _write(self, message: dict[str, Any]) -> None:
        if self._visitor is not None:
            try:
                self._visitor.sendall(json.dumps(message).encode() + b"\n")
            except OSError:
                self._goodbye()

    def _goodbye(self) -> None:
        if self._visitor is not None:
            self._events.forget(self._visitor.fileno())
            self._visitor.close()
            self._visitor = None
