"""The seam to uvicorn: one client's connection.

uvicorn parses, keeps alive, and serves what FastAPI documents. A request for inference takes the short way: no scope,
no task, no messages; its `Client` is put where uvicorn keeps the current cycle, and the path runs as soon as the body
is whole. This class leans on uvicorn's inside, so uvicorn's version is pinned, and the tests run it over real sockets.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final, cast

import httptools

from server.errors import BadRequestError
from server.gateway.client import Client, Header
from server.gateway.drive import Drive
from server.gateway.gone import GONE
from server.gateway.guarded import GuardedConnection
from server.gateway.upstream.upstream import Exchange

__all__ = ["ClientConnection"]

_OF_UPGRADES: Final = frozenset({b"upgrade", b"connection", b"http2-settings"})
_HIGH_WATER: Final = 64 * 1024
_MOST_AHEAD: Final = 16
"""Requests that are read while one before them runs, and a read more. None would be enough to serve them, but only who
reads learns that the client has left."""
_MOST_BYTES_AHEAD: Final = 64 * 1024


class ClientConnection(GuardedConnection):
    """Reads requests and starts them in their order."""

    _trailer_bytes = 0
    _ahead_bytes = 0
    """Read since requests wait behind the one that runs, or since it was their turn last."""
    _upgrading = False
    """The client would rather speak another protocol: its request is read again without that wish."""
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
            self._pass_over(len(data))
            return
        self._read_bytes, self._ended_bytes = len(data), 0
        if self._reading:
            self._count(len(data))
        rest: int | None = None
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as exc:
            rest = exc.args[0]
        except httptools.HttpParserError as exc:
            self._broken(exc)
            return
        if rest is not None:
            self._go_on_without_upgrade(data[rest:])
        elif self._reading:
            self._check_what_is_half_there()
        if self.pipeline:
            self._ahead_bytes += len(data)
            self._read_ahead_or_wait()

    def _read_ahead_or_wait(self) -> None:
        """Requests wait behind the one that runs: read more of them while they are few."""
        if len(self.pipeline) < _MOST_AHEAD and self._ahead_bytes < _MOST_BYTES_AHEAD:
            self.flow.resume_reading()
        else:
            self.flow.pause_reading()

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
        if self._deaf or self.transport.is_closing():
            raise ConnectionAbortedError("the read goes on behind the last request that is served")
        self.url = b""
        self.headers = []
        self._reading = self._in_head = True
        self._head_bytes = self._read_bytes
        self._head_behind_bytes = self._ended_bytes
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
        self._ended_bytes = self._read_bytes
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

    def flows_from(self, exchange: Exchange) -> None:
        """Hold this exchange back while the client does not read."""
        self._source = exchange
        if self._stalled_at:
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
        self._ahead_bytes = 0
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._read_ahead_or_wait()
            self._start_asgi_task(cycle, app)
        elif self.flow.read_paused:
            self.flow.resume_reading()

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
