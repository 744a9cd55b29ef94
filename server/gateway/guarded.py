"""What goes wrong with a client: it sends too much, is slow, or speaks no HTTP."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, ClassVar, Final

import httptools
import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from server.errors import BadRequestError, RequestError, SlowClientError
from server.gateway.client import Client
from server.units import Seconds

if TYPE_CHECKING:
    from server.gateway.listener import Listener

__all__ = ["GuardedConnection"]

KEEP_ALIVE_S: Final = 75.0
"""An idle connection stays open so long: longer than clients' own pools keep theirs, so that they close first."""

_LINGER_S: Final = 2.0
_LINGER_TOTAL_S: Final = 10.0
_LINGER_BYTES: Final = 64 * 2**20
_FRAMING_SHARE: Final = 9
"""A byte of a body takes no more bytes of chunks."""
_SLOWEST_BODY: Final = 16 * 1024
"""Bytes a second."""

_log = logging.getLogger("wattgate.gateway")


class GuardedConnection(HttpToolsProtocol):
    """A connection that cuts off a client who asks too much of it. Whoever reads from it keeps these up to date."""

    listener: ClassVar[Listener]

    cycle: Any
    _reading = False
    """Between a message's first byte and its last."""
    _in_head = False
    _read_bytes = 0
    """Of the read that is being parsed."""
    _head_bytes = 0
    """Of the reads that brought the current head: no less than there is of it."""
    _head_behind_bytes = 0
    """Of them, of the one in which the message before it ended: how much of that is the head's nobody knows."""
    _ended_bytes = 0
    """Of the read that is being parsed, if a message has ended in it."""
    _body_reads_bytes = 0
    """Of the reads after that one: the body, its framing, and what follows it."""
    _deaf = False
    """What still comes is not read: it follows something that is not HTTP, or an answer before the request's end."""
    _unheard_bytes = 0
    _lingers_since = 0.0
    """Since when only the client's end of the connection is waited for; 0: it is in use."""
    _touched_at = Seconds(0.0)
    """When something was last received, or an answer ended."""
    _began_at = 0.0
    """When the message that is read began."""
    _stalled_at = 0.0
    """Since when nothing could be written; 0 while the client reads."""
    _unread_bytes = 0
    """Of what could not be written then."""

    # --- too much -----------------------------------------------------------------------------------------------------

    def _count(self, size: int) -> None:
        """A read goes on with a message."""
        if self._in_head:
            self._head_bytes += size
        else:
            self._body_reads_bytes += size

    def _check_what_is_half_there(self) -> None:
        """A message that goes on with the next read must not grow without end."""
        bound = self.listener.settings.max_header_bytes
        if self._in_head:
            if self._head_bytes - self._head_behind_bytes > bound:
                self._break_off(self.listener.headers_too_large())
        elif type(self.cycle) is Client:
            self.cycle.waits_for_more()
            if self._body_reads_bytes > bound + _FRAMING_SHARE * self.cycle.size:
                self._break_off(self.listener.headers_too_large())

    def _pass_over(self, size: int) -> None:
        self._unheard_bytes += size
        if self._unheard_bytes > _LINGER_BYTES:
            self.transport.abort()

    # --- too slow -----------------------------------------------------------------------------------------------------

    def look(self, now: float) -> None:
        """Cut off a client that keeps the gateway waiting; called about every second."""
        silent, patience = now - self._touched_at, self.listener.settings.idle_timeout_s
        if self.transport.is_closing():
            if silent > patience:  # the client does not read what is left
                self.transport.abort()
        elif self._lingers_since:
            if silent > _LINGER_S or now - self._lingers_since > _LINGER_TOTAL_S:
                self.transport.abort()
        elif self._stalled_at:
            self._look_at_reader(now)
        elif self._reading and not self._deaf and not self.pipeline:
            self._look_at_writer(now)
        elif silent > KEEP_ALIVE_S and (self.cycle is None or self.cycle.response_complete):
            self.transport.close()

    def _look_at_writer(self, now: float) -> None:
        """A client that sends a request drop by drop."""
        head_bound, idle_bound = self.listener.settings.header_timeout_s, self.listener.settings.idle_timeout_s
        if self._in_head:
            if now - self._began_at > head_bound:
                what = f"The request's head did not come within {head_bound:g} s (`gateway.header_timeout_s`)"
                self._break_off(SlowClientError(f"{what}. Send it without a pause."))
        elif now - self._touched_at <= idle_bound and now - self._began_at <= idle_bound + self._body_time():
            return
        elif type(self.cycle) is not Client:
            self.transport.close()  # it was answered without its body
        else:
            what = f"Nothing came of the body for {idle_bound:g} s (`gateway.idle_timeout_s`)"
            self.cycle.refuse(SlowClientError(f"{what}. Send it without a pause."))

    def _body_time(self) -> float:
        """Seconds that what has come of the body may have taken."""
        return self._body_reads_bytes / _SLOWEST_BODY

    def _look_at_reader(self, now: float) -> None:
        """A client that reads nothing would hold its slot and its engine for ever."""
        left = self.transport.get_write_buffer_size()
        if left < self._unread_bytes:
            self._unread_bytes, self._stalled_at = left, now
        elif now - self._stalled_at > self.listener.settings.idle_timeout_s:
            self.transport.abort()

    # --- not HTTP -----------------------------------------------------------------------------------------------------

    def _broken(self, exc: httptools.HttpParserError) -> None:
        """The parser gave up, or a callback of it refused; behind the last answer that means nothing."""
        if self._deaf or self.transport.is_closing():
            return
        cause = exc.__context__
        if isinstance(cause, RequestError):
            self._break_off(cause)
        elif isinstance(exc, httptools.HttpParserCallbackError):
            _log.error("a defect of the gateway while it read a request", exc_info=exc)
            self._break_off(RequestError("The gateway failed; this is a defect. Its log says more."))
        else:
            self._break_off(BadRequestError(f"This is not HTTP/1.1 as it should be: {exc}."))

    def _break_off(self, error: RequestError) -> None:
        """Read no further; what was whole before is still answered, and then, if possible, this error."""
        in_head = self._in_head or not self._reading or self.cycle is None or self.cycle.response_complete
        self._deaf, self._in_head = True, False
        current = self.cycle
        if current is not None and not current.response_complete:
            if type(current) is Client and not in_head:
                current.refuse(error)
            else:
                current.keep_alive = False
                self._reading = False
            return
        body = msgspec.json.encode(error.body())
        lines = [
            self.listener.begin_of_head(error.status, self.server_state),
            b"content-type: application/json\r\nconnection: close\r\n",
        ]
        lines += (b"content-length: %d\r\n\r\n" % len(body), body)
        self.transport.write(b"".join(lines))
        self._linger()

    def _linger(self) -> None:
        """Close so that the client can still read the answer: data that arrives at a closed socket would reset it."""
        self._deaf = True
        self._lingers_since = self._touched_at
        if self.transport.can_write_eof() and not self.transport.is_closing():
            self.transport.write_eof()
        else:
            self.transport.close()
