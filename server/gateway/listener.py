"""The seam to uvicorn: what the path must know of the client's connection.

uvicorn tells an application that its client has left only to a task that waits for it; a task a request costs more than
the rest of the bookkeeping. This protocol class calls back instead, writes whole answers at once, and lets the path end
a connection. It leans on uvicorn's inside: its tests run the path over real sockets, on every version that is allowed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, MutableMapping
from itertools import chain
from math import ceil
from typing import Any, ClassVar, Final, cast

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from server.units import Seconds

__all__ = ["Client", "ClientConnection", "client_of", "listener_config"]

CLIENT: Final = "wattgate.client"
"""The ASGI extension under which a request finds who sent it."""


_KEEP_ALIVE: Final = 75
"""Seconds an idle client connection stays open: longer than clients' own pools do, so that they close first."""


class ClientConnection(HttpToolsProtocol):
    """uvicorn's HTTP protocol, which gives every request its `Client`."""

    on_lost: Callable[[], Any] | None = None
    """Whom to tell that the client has left."""
    patience_s: ClassVar[float]
    """A client that reads nothing for so long is cut off: it would hold its slot and its engine for ever."""
    _stalled: asyncio.TimerHandle | None = None
    _unread_bytes: int = 0

    def pause_writing(self) -> None:
        super().pause_writing()
        self._wait_for_reader()

    def resume_writing(self) -> None:
        self._stop_waiting()
        super().resume_writing()

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        cast("dict[str, Any]", self.scope)["extensions"] = {CLIENT: Client(self, self.cycle)}

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)
        on_lost, self.on_lost = self.on_lost, None
        if on_lost is not None:
            on_lost()

    def _wait_for_reader(self) -> None:
        self._unread_bytes = self.transport.get_write_buffer_size()
        self._stalled = self.loop.call_later(self.patience_s, self._cut_if_stalled)

    def _stop_waiting(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def _cut_if_stalled(self) -> None:
        if self.transport.get_write_buffer_size() < self._unread_bytes:
            self._wait_for_reader()
        else:
            self.transport.abort()


class Client:
    """Who waits for one request's answer. Several requests may wait on a connection; one is served at a time."""

    __slots__ = ("_cycle", "_protocol")

    def __init__(self, protocol: ClientConnection, cycle: RequestResponseCycle) -> None:
        self._protocol = protocol
        self._cycle = cycle

    def watch(self, on_lost: Callable[[], Any]) -> None:
        """Call back once, at once, when the client leaves; it is called even if the client has left already."""
        if self._protocol.transport.is_closing():
            on_lost()
        else:
            self._protocol.on_lost = on_lost

    def unwatch(self) -> None:
        """Whether the client leaves is no longer of interest."""
        self._protocol.on_lost = None

    def body_is_read(self) -> None:
        """Go on reading: uvicorn stops at a large body, and then does not see that the client leaves."""
        self._protocol.flow.resume_reading()

    def answer(self, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> None:
        """Send a whole answer in one write: uvicorn's own way takes two, and a system call is what costs.

        `headers` hold what HTTP allows, and the body's length.
        """
        protocol, cycle = self._protocol, self._cycle
        if protocol.transport.is_closing():
            return
        cycle.response_started, cycle.waiting_for_100_continue = True, False
        pieces = [STATUS_LINE[status]]
        for name, value in chain(protocol.server_state.default_headers, headers):
            pieces += (name, b": ", value, b"\r\n")
        if not cycle.keep_alive:
            pieces.append(b"connection: close\r\n")
        pieces += (b"\r\n", b"" if cycle.scope["method"] == "HEAD" else body)
        protocol.transport.write(b"".join(pieces))
        cycle.response_complete = True
        cycle.message_event.set()
        if not cycle.keep_alive:
            protocol.transport.close()
        cycle.on_response()

    def close_after_answer(self) -> None:
        """Close the connection in order once the answer that is being sent is complete."""
        self._cycle.keep_alive = False

    def cut(self) -> None:
        """Close the connection now, so that the client sees that the answer is not complete."""
        self._cycle.disconnected = True  # else uvicorn logs a defect of the application
        self._protocol.transport.close()


def client_of(scope: MutableMapping[str, Any]) -> Client:
    """Who sent a request; to be asked once, so that scope and client do not keep one another alive."""
    client = (scope.get("extensions") or {}).pop(CLIENT, None)
    if not isinstance(client, Client):
        raise TypeError(
            "The gateway's app needs its own listener: run it with server.gateway.listener.listener_config."
        )
    return client


def listener_config(app: ASGIApp, *, drain_timeout: Seconds, idle_timeout: Seconds) -> uvicorn.Config:
    """How uvicorn must run the gateway's app; clients that read nothing for `idle_timeout` are cut off."""
    return uvicorn.Config(
        app,
        http=type("PatientConnection", (ClientConnection,), {"patience_s": idle_timeout}),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=ceil(drain_timeout),
    )
