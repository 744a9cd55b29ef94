"""HTTP/1.1 over one socket, every read stamped with its arrival."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from gevent import get_hub, socket
from gevent.event import Event
from geventhttpclient.response import HTTPParseError, HTTPResponse

__all__ = ["SO_TIMESTAMPNS", "BrokenAnswerError", "Clocks", "Connection", "Take"]

Take = Callable[[int, bytes, float, float | None], None]
"""Told of every part of the body: the status, the bytes, when they were read, and how long the last had waited in
the kernel by then (None where the kernel does not tell it, as under TLS). Must not wait: the loop itself calls it.
"""

SO_TIMESTAMPNS: Final = 35
"""Linux, include/uapi/asm-generic/socket.h: the kernel's receive time of the last byte read, as a control message."""
_TIMESPEC: Final = struct.Struct("@ll")
_CONTROL_BYTES: Final = 64
_READ_BYTES: Final = 16_384
_NANOSECOND: Final = 1e-9
_MAX_LAG_S: Final = 60.0
"""A greater distance between stamp and clock is a clock that was set, not a lag."""
_SILENCE_S: Final = 120.0
"""Longest silence within an answer."""
_FINAL: Final = 200
"""The lowest status of an answer; what comes with one below only announces it."""
_READABLE: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Clocks:
    """Both are read at one instant, to put a stamp of the kernel's on our time."""

    now_s: Callable[[], float]
    """Seconds since the run's start."""
    wall_ns: Callable[[], int]
    """CLOCK_REALTIME, which the kernel stamps with."""


class BrokenAnswerError(Exception):
    """The bytes are no HTTP answer, or the connection ended within one."""


class _Parser(HTTPResponse):
    """llhttp, with the body handed out as it comes."""

    def __init__(self) -> None:
        super().__init__()
        self.body: list[bytes] = []

    def _on_body(self, data: bytearray) -> None:
        self.body.append(bytes(data))

    def taken(self) -> bytes:
        """The body that has come since the last call."""
        body, self.body = self.body, []
        return body[0] if len(body) == 1 else b"".join(body)


class Connection:
    """One request at a time."""

    def __init__(self, sock: Any, clocks: Clocks, *, plain: bool) -> None:
        self._socket = sock
        self._clocks = clocks
        self._readable = get_hub().loop.io(sock.fileno(), _READABLE) if plain else None
        self._parser = _Parser()
        self._used = False
        self._answered = False

    def exchange(self, request: bytes, take: Take) -> None:
        """Send a request, and hand out its answer to the very end: only then the connection can serve again.

        Raises OSError (TimeoutError after a long silence) and `BrokenAnswerError`.
        """
        self._parser, self._answered = _Parser(), False
        self._socket.settimeout(_SILENCE_S)
        self._socket.sendall(request)
        if self._readable is None:
            while not self._complete:
                self._feed(self._socket.recv(_READ_BYTES), self._clocks.now_s(), None, take)
        else:
            self._read_by_events(self._readable, take)

    @property
    def status(self) -> int | None:
        """None before the head of the answer has come."""
        code = int(self._parser.get_code()) if self._parser.headers_complete else 0
        return code if code >= _FINAL else None

    @property
    def stale(self) -> bool:
        """It had served before, and of this answer no byte has come: the server has closed it in between."""
        return self._used and not self._answered

    @property
    def reusable(self) -> bool:
        return self._complete and not self._parser.should_close()

    def keep(self) -> None:
        self._used = True

    def close(self) -> None:
        if self._readable is not None:
            self._readable.stop()
            self._readable.close()
            self._readable = None
        self._socket.close()

    @property
    def _complete(self) -> bool:
        return bool(self._parser.message_complete) and self.status is not None

    def _read_by_events(self, readable: Any, take: Take) -> None:
        """Every read is made by the loop itself: a turn of a greenlet for each chunk would cost twice the time."""
        over = Event()
        problem: list[Exception] = []
        reads = 0

        def read() -> None:
            nonlocal reads
            reads += 1
            try:
                self._feed(*self._receive(), take)
            except BlockingIOError:
                return
            except Exception as exc:  # noqa: BLE001  # raised again below, in the greenlet that waits
                problem.append(exc)
            if problem or self._complete:
                readable.stop()
                over.set()

        self._socket.settimeout(0.0)
        readable.start(read)
        try:
            seen = -1
            while not over.is_set():
                if reads == seen:
                    raise TimeoutError(f"The server was silent for {_SILENCE_S:g} s.")
                seen = reads
                over.wait(_SILENCE_S)
        finally:
            readable.stop()
        if problem:
            raise problem[0]

    def _receive(self) -> tuple[bytes, float, float | None]:
        data, control, _, _ = self._socket.recvmsg(_READ_BYTES, _CONTROL_BYTES)
        read_s, wall_ns = self._clocks.now_s(), self._clocks.wall_ns()
        for level, kind, value in control:
            if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPNS:
                seconds, nanoseconds = _TIMESPEC.unpack(value)
                lag_s = (wall_ns - seconds * 1_000_000_000 - nanoseconds) * _NANOSECOND
                return data, read_s, lag_s if 0 <= lag_s <= _MAX_LAG_S else None
        return data, read_s, None

    def _feed(self, data: bytes, read_s: float, lag_s: float | None, take: Take) -> None:
        self._answered = self._answered or bool(data)
        parser = self._parser
        try:
            parser.feed(data)
        except HTTPParseError as exc:
            raise BrokenAnswerError(f"The answer is not HTTP ({exc}).") from exc
        body = parser.taken()
        if body:
            take(parser.get_code(), body, read_s, lag_s)
        if not data and not parser.message_complete:
            raise BrokenAnswerError("The connection ended within the answer.")
