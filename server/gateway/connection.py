"""The seam to uvicorn: one client's connection.

uvicorn parses, keeps alive, and serves what FastAPI documents. A request for inference takes the short way: no scope,
no task, no messages; its `Client` is put where uvicorn keeps the current cycle, and the path runs as soon as the body
is whole. This class leans on uvicorn's inside, so uvicorn's version is pinned, and the tests run it over real sockets.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, ClassVar, Final, cast

import httptools
import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from server.errors import BadRequestError, RequestError, SlowClientError
from server.gateway.client import Client, Header
from server.gateway.drive import Drive
from server.gateway.upstream.upstream import Exchange
from server.units import Seconds

if TYPE_CHECKING:
    from server.gateway.listener import Listener

__all__ = ["ClientConnection"]

KEEP_ALIVE_S: Final = 75.0
"""An idle connection stays open so long: longer than clients' own pools keep theirs, so that they close first."""

_LINGER_S: Final = 2.0
_LINGER_TOTAL_S: Final = 10.0
_LINGER_BYTES: Final = 64 * 2**20
_SLOWEST_BODY: Final = 16 * 1024
"""Bytes a second."""
_FRAMING_SHARE: Final = 9
"""A byte of a body takes no more bytes of chunks."""
_OF_UPGRADES: Final = frozenset({b"upgrade", b"connection", b"http2-settings"})
_HIGH_WATER: Final = 64 * 1024

_log = logging.getLogger("wattgate.gateway")


class _Gone:
    """In the place of a transport whose client has left: takes everything, does nothing."""

    def is_closing(self) -> bool:
        return True

    def write(self, data: bytes) -> None:
        """Write nothing."""

    def close(self) -> None:
        """It is closed."""

    def abort(self) -> None:
        """It is closed."""

    def can_write_eof(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0


GONE: Final = _Gone()


class ClientConnection(HttpToolsProtocol):
    """Reads requests, starts them in their order, and keeps watch over a client that is slow or gone."""

    listener: ClassVar[Listener]

    cycle: Any
    _reading = False
    """Between a message's first byte and its last."""
    _in_head = False
    _read_bytes = 0
    """Of the read that is being parsed."""
    _head_bytes = 0
    """Of the reads that brought the current head: no less than there is of it."""
    _body_reads_bytes = 0
    """Of the reads after that one: the body, its framing, and what follows it."""
    _trailer_bytes = 0
    _upgrading = False
    """The client would rather speak another protocol: its request is read again without that wish."""
    _deaf = False
    """What still comes is not read: it follows something that is not HTTP, or an answer before the request's end."""
    _unheard_bytes = 0
    _lingers_since = 0.0
    """Since when only the client's end of the connection is waited for; 0: it is in use."""
    _touched_at = Seconds(0.0)
    """When something was last received, or an answer ended."""
    _began_at = 0.0
    _stalled_at = 0.0
    """Since when nothing could be written; 0 while the client reads."""
    _unread_bytes = 0
    _draining = False
    _source: Exchange | None = None
    _running: Client | None = None

    # --- asyncio ------------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=_HIGH_WATER)
        self._touched_at = self.listener.joined(self)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        queued: list[Any] = [cycle for cycle, _ in self.pipeline]
        waiting = [self._running, *(one for one in queued if type(one) is Client)]
        if type(self.cycle) is Client and self.cycle not in waiting and not self.cycle.response_complete:
            waiting.append(self.cycle)
        self._running = None
        self.pipeline.clear()
        for client in waiting:
            if client is not None:
                client.lost()
        self._source = None
        self._reading = False
        self.listener.left(self)
        if type(self.cycle) is Client:
            self.cycle = None
        # Transport and connection hold one another; so does much else. Without this, all of it would wait for a
        # garbage collection, and what has lived long waits long.
        self.transport = cast("asyncio.Transport", GONE)

    def data_received(self, data: bytes) -> None:
        self._touched_at = self.listener.clock.monotonic()
        if self._deaf:
            self._unheard_bytes += len(data)
            if self._unheard_bytes > _LINGER_BYTES:
                self.transport.abort()
            return
        self._count(len(data))
        rest: int | None = None
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as exc:
            rest = exc.args[0]
        except httptools.HttpParserError as exc:
            if not self._is_over():
                self._broken(exc)
            return
        if rest is not None:
            self._go_on_without_upgrade(data[rest:])
        elif self._reading:
            self._check_what_is_half_there()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stalled_at = self.listener.clock.monotonic()
        self._unread_bytes = self.transport.get_write_buffer_size()
        if self._source is not None:
            self._source.pause()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stalled_at = 0.0
        if self._source is not None:
            self._source.resume()

    def _count(self, size: int) -> None:
        self._read_bytes = size
        if self._in_head:
            self._head_bytes += size
        elif self._reading:
            self._body_reads_bytes += size

    def _check_what_is_half_there(self) -> None:
        """A message that goes on with the next read must not grow without end."""
        bound = self.listener.settings.max_header_bytes
        if self._in_head:
            if self._head_bytes > bound:
                self._break_off(self.listener.headers_too_large())
        elif type(self.cycle) is Client:
            self.cycle.waits_for_more()
            if self._body_reads_bytes > bound + _FRAMING_SHARE * self.cycle.size:
                self._break_off(self.listener.headers_too_large())

    def _go_on_without_upgrade(self, rest: bytes) -> None:
        """Who can be answered in HTTP/1.1 wants an answer more than another protocol (RFC 9110, 7.8)."""
        if self.parser.get_method() == b"CONNECT":
            self._break_off(BadRequestError("CONNECT is not possible here."))
            return
        self._upgrading, self._reading, self._in_head = False, False, False
        lines = [b"%b %b HTTP/1.1\r\n" % (self.parser.get_method(), self.url)]
        lines += [b"%b: %b\r\n" % header for header in self.headers if header[0] not in _OF_UPGRADES]
        self.parser = httptools.HttpRequestParser(self)
        self.data_received(b"".join((*lines, b"\r\n", rest)))

    # --- httptools ----------------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._is_over():
            raise ConnectionAbortedError("the read goes on behind the last request that is served")
        self.url = b""
        self.headers = []
        self.expect_100_continue = False
        self._reading = self._in_head = True
        self._head_bytes = self._read_bytes
        self._body_reads_bytes = self._trailer_bytes = 0
        self._began_at = self._touched_at

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:
            self.headers.append((name.lower(), value))
        else:  # what follows the body could otherwise pose as a key
            self._trailer_bytes += len(name) + len(value)
            if self._trailer_bytes > self.listener.settings.max_header_bytes:
                raise self.listener.headers_too_large()

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade():
            self._upgrading = True
            return
        self._in_head = False
        listener, version, fields = self.listener, self.parser.get_http_version(), dict(self.headers)
        if (
            version != "1.1"
            or len(fields) < len(self.headers)
            or self._head_bytes > listener.settings.max_header_bytes
            or len(fields) > listener.max_headers
            or fields.get(b"host") not in listener.good_hosts
        ):
            listener.check_head(self.url, self.headers, version)
        headers, self.headers = self.headers, []
        endpoint = listener.endpoint_of(self.url)
        method: bytes = self.parser.get_method()
        if endpoint is None or method == b"OPTIONS":
            self._leave_to_uvicorn(headers)
            return
        before = self.cycle
        one_one = version == "1.1"
        client = self.cycle = Client(
            self,
            endpoint,
            method=method,
            fields=fields,
            received_at=self._touched_at,
            chunked=one_one,
            keep_alive=one_one and not self._draining and self.parser.should_keep_alive(),
        )
        if (
            len(fields.get(b"content-length", b"")) >= listener.long_length
            or b"transfer-encoding" in fields
            or not listener.notable.isdisjoint(fields)
        ):
            listener.welcome(client)
        if before is None or before.response_complete:
            self._running = client
            client.your_turn()
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((cast("Any", client), self.app))

    def on_body(self, body: bytes) -> None:
        if type(self.cycle) is Client:
            self.cycle.add(body, self.listener.settings.max_body_bytes)
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if self._upgrading:
            return
        self._reading = False
        if type(self.cycle) is Client:
            self.cycle.body_is_whole()
        else:
            super().on_message_complete()

    def _leave_to_uvicorn(self, headers: list[Header]) -> None:
        """Build what uvicorn would have built while the head came in."""
        url = self.url
        super().on_message_begin()
        self.url = url
        self.headers += headers
        self.expect_100_continue = any(name == b"expect" for name, _ in headers)
        super().on_headers_complete()
        self.headers = []
        if self._draining:
            self.cycle.keep_alive = False

    # --- for the client -----------------------------------------------------------------------------------------------

    def serve(self, client: Client) -> Drive:
        """A run of the path for this client."""
        return Drive(self.listener.serve(client))

    def begin_of_head(self, status: int) -> bytes:
        """An answer's first lines."""
        return self.listener.begin_of_head(status, self.server_state)

    def flows_from(self, exchange: Exchange | None) -> None:
        """Hold this exchange back while the client does not read."""
        self._source = exchange
        if exchange is not None and self._stalled_at:
            exchange.pause()

    def answered(self, client: Client) -> None:
        """An answer is written whole."""
        self._source = self._running = None
        if client.keep_alive:
            self.on_response_complete()
        elif self._reading or self._deaf:
            self._linger()
        else:
            self.transport.close()

    # --- uvicorn ------------------------------------------------------------------------------------------------------

    def on_response_complete(self) -> None:
        """An answer, of either way, is sent: the next request's turn."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self._touched_at = self.listener.clock.monotonic()
        self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        if type(cycle) is Client:
            self._running = cycle
            self.loop.call_soon(cycle.your_turn)  # not deeper and deeper with each one that is queued
        else:
            super()._start_asgi_task(cycle, app)

    def shutdown(self) -> None:
        """Serve what runs and what is just coming, then close."""
        self._draining = True
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.keep_alive = False
        elif self.listener.last_call_s:
            # A client may be sending its next request this moment: it is served, and told to come no more.
            self.loop.call_later(self.listener.last_call_s, self._close_if_idle)
        else:
            self._close_if_idle()

    def _close_if_idle(self) -> None:
        if not self._reading and (self.cycle is None or self.cycle.response_complete):
            self.transport.close()

    # --- what goes wrong ----------------------------------------------------------------------------------------------

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

    def _broken(self, exc: httptools.HttpParserError) -> None:
        """The parser gave up, or a callback of it refused."""
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
        self.listener.refused_unread()
        body = msgspec.json.encode(error.body())
        lines = [self.begin_of_head(error.status), b"content-type: application/json\r\nconnection: close\r\n"]
        lines += (b"content-length: %d\r\n\r\n" % len(body), body)
        self.transport.write(b"".join(lines))
        self._linger()

    def _is_over(self) -> bool:
        """Whether the last answer was sent already."""
        return self._deaf or self.transport.is_closing()

    def _linger(self) -> None:
        """Close so that the client can still read the answer: data that arrives at a closed socket would reset it."""
        self._deaf = True
        self._lingers_since = self._touched_at
        if self.transport.can_write_eof() and not self.transport.is_closing():
            self.transport.write_eof()
        else:
            self.transport.close()
