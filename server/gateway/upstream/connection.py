"""One HTTP/1.1 connection to an engine: bytes in, an answer's parts out."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from typing import Any, Final, Protocol, cast

import httptools

from server.clock import Clock
from server.gateway.upstream.splice import Splice
from server.units import Seconds

__all__ = ["Connection", "Receiver"]

_MAX_HEAD_BYTES: Final = 64 * 1024
_SMALL_BODY_BYTES: Final = 64 * 1024
_NO_BODY: Final = frozenset({204, 304})


class Receiver(Protocol):
    """Takes one answer, part by part, within the event loop's callback: microseconds, no waiting."""

    def sent(self, at: Seconds) -> None:
        """The request's last byte has left."""

    def head(self, status: int, headers: Mapping[bytes, bytes]) -> None:
        """The answer's head is whole; `arrived` follows within the same read."""

    def arrived(self, at: Seconds, data: bytes, ended: bool) -> None:
        """What one read brought behind the head, which may be nothing, and whether the answer is whole now."""

    def lost(self, why: str) -> None:
        """The connection broke before the answer was whole."""


class Connection:
    """A protocol of asyncio's. Carries one exchange after the other; `reusable` says whether it can carry another."""

    def __init__(self, clock: Clock) -> None:
        self._now = clock.monotonic
        self._fields: dict[bytes, bytes] = {}
        """The head's, as they come."""
        self.on_header = self._fields.__setitem__  # for the parser: no code of ours runs for a header
        self._parser: Any = None
        self._transport: asyncio.Transport | None = None
        self._receiver: Receiver | None = None
        self._head_bytes = 0
        self._parts: list[bytes] = []
        self._interim = False
        self._until_close = False
        self._whole = False
        self._headed = False
        self._unsent = False
        self.reusable = False
        self._splice: Splice | None = None
        self.between_chunks = False
        """The next byte begins a chunk of the answer's body."""
        self.began_at: Seconds | None = None
        """When the answer's first byte came."""
        self._heard_at = Seconds(0.0)
        self.idle_since = Seconds(0.0)
        self.fresh = True
        """It has not carried an answer yet."""

    # --- for the exchange ---------------------------------------------------------------------------------------------

    def send(self, receiver: Receiver, head: bytes, body: bytes) -> None:
        """Send a request; `receiver` takes the answer."""
        if self._transport is None:  # it was lost between its opening and this
            receiver.lost("closed the connection")
            return
        self._receiver = receiver
        self.began_at = None
        self._fields.clear()
        self._whole = self._headed = self._until_close = self.between_chunks = self.reusable = False
        self._head_bytes = 0
        if len(body) <= _SMALL_BODY_BYTES:
            self._transport.write(head + body)
        else:
            self._transport.write(head)
            self._transport.write(body)
        if not self._unsent:
            receiver.sent(self._now())

    @property
    def heard_at(self) -> Seconds:
        """When something last came."""
        kept_at = self._splice.heard_at if self._splice is not None else None
        return self._heard_at if kept_at is None else max(self._heard_at, kept_at)

    def insert(self, splice: Splice) -> None:
        """Let it receive in this connection's place until the exchange is over."""
        splice.connection = self
        if self._transport is not None:
            self._splice = splice
            self._transport.set_protocol(cast("asyncio.Protocol", splice))

    def release(self) -> None:
        """The exchange is over."""
        self._receiver = None
        if self._splice is not None:
            self._splice = None
            if self._transport is not None:
                self._transport.set_protocol(cast("asyncio.Protocol", self))
        self.fresh = False
        self.idle_since = self._now()

    def pause(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def abort(self) -> None:
        """Close at once; nothing more is received."""
        self._receiver = None
        self.reusable = False
        if self._transport is not None:
            self._transport.abort()

    # --- asyncio ------------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._parser = httptools.HttpResponseParser(self)
        # Any unsent byte pauses writing, so that `resume_writing` tells when the last one left.
        self._transport.set_write_buffer_limits(high=0)
        raw = transport.get_extra_info("socket")
        if raw is not None:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def pause_writing(self) -> None:
        self._unsent = True

    def resume_writing(self) -> None:
        self._unsent = False
        if self._receiver is not None:
            self._receiver.sent(self._now())

    def data_received(self, data: bytes) -> None:
        receiver = self._receiver
        if receiver is None or self._whole:  # nobody asked for this
            self.abort()
            return
        at = self._heard_at = self._now()
        if self.began_at is None:
            self.began_at = at
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as exc:
            self.reusable = False
            if not self._whole:  # else only what follows the answer is wrong
                self._break(f"sent something that is not HTTP ({exc})")
                return
        if self._headed:
            parts, self._parts = self._parts, []
            receiver.arrived(at, parts[0] if len(parts) == 1 else b"".join(parts), self._whole)
        else:
            self._head_bytes += len(data)
            if self._head_bytes > _MAX_HEAD_BYTES:
                self._break("sent a head without end")

    def eof_received(self) -> None:
        if self._until_close and self._receiver is not None:
            self._whole = True
            self._receiver.arrived(self._now(), b"", True)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = self._splice = None
        self._parser = None  # they hold one another, and would both wait for a garbage collection
        self.reusable = False
        if not self._whole:
            self._break(f"broke the connection ({exc})" if exc else "closed the connection")

    def _break(self, why: str) -> None:
        receiver = self._receiver
        self.abort()
        if receiver is not None:
            receiver.lost(why)

    # --- httptools ----------------------------------------------------------------------------------------------------

    def on_headers_complete(self) -> None:
        if self._whole:
            raise ValueError("a second answer to one request")
        status = self._parser.get_status_code()
        self._interim = status < 200
        if self._interim or self._receiver is None:
            self._fields.clear()
            return
        self._headed = True
        fields = {name.lower(): value for name, value in self._fields.items()}
        self._until_close = (
            not self._parser.should_keep_alive()
            and status not in _NO_BODY
            and fields.keys().isdisjoint((b"content-length", b"transfer-encoding"))
        )
        self._receiver.head(status, fields)

    def on_body(self, data: bytes) -> None:
        self._parts.append(data)

    def on_chunk_header(self) -> None:
        self.between_chunks = False

    def on_chunk_complete(self) -> None:
        self.between_chunks = True

    def on_message_complete(self) -> None:
        if self._interim:
            return
        self._whole = True
        self.reusable = (
            self._parser.should_keep_alive()
            and not self._unsent  # an answer before the request was sent: the rest of it would still go out
            and self._transport is not None
            and not self._transport.is_closing()
        )
