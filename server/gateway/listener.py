"""What all client connections of a worker share: settings, the inference paths, bounds, and one watch over the slow."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Coroutine, Mapping
from ipaddress import ip_address
from math import ceil
from typing import Any, Final
from urllib.parse import unquote_to_bytes
from weakref import WeakSet

import httptools
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import STATUS_LINE
from uvicorn.server import ServerState

from server.clock import Clock
from server.config.settings import GatewaySettings
from server.errors import BadRequestError, HeadersTooLargeError, RequestError
from server.gateway.client import Client, Header, body_too_large
from server.gateway.connection import ClientConnection
from server.gateway.endpoints import ENDPOINTS, Endpoint
from server.units import Seconds

__all__ = ["Listener"]

LAST_CALL: Final = Seconds(1.0)
"""How long a worker that drains waits for requests on idle connections before it closes them."""

_LOOK_EVERY: Final = 1.0
_HEADER_FRAMING: Final = len(b": \r\n")
_ONLY_ONCE: Final = (b"host", b"authorization", b"x-api-key", b"x-request-id")
"""Of two of them no reader can say which one counts."""
_MAX_KNOWN: Final = 1000
_LONG_BODY: Final = 100_000
"""Bytes that a stranger need not send before he is refused."""
_MAX_DIGITS: Final = 19
"""A longer number is too long in any case."""
_UNKNOWN_LENGTH: Final = b"100000"
_PLAIN_PATH: Final = re.compile(rb"/[^?#%\x80-\xff]*")
"""Stands in the table as it is, or not at all."""
_LOOPBACK_NAMES: Final = frozenset({b"localhost", b"127.0.0.1", b"[::1]"})

_log = logging.getLogger("wattgate.gateway")

Serve = Callable[[Client], Coroutine[Any, None, None]]


class Listener:
    """One a worker."""

    def __init__(
        self,
        settings: GatewaySettings,
        serve: Serve,
        *,
        check_key: Callable[[Mapping[bytes, bytes]], object],
        clock: Clock,
        last_call: Seconds = LAST_CALL,
    ) -> None:
        """`serve` is the path of a request; `check_key` raises if a head's key is not known."""
        self.settings = settings
        self.serve = serve
        self._check_key = check_key
        self.clock = clock
        self.last_call_s = last_call
        self.half_bytes = 0
        """Of bodies whose end has not come."""
        self._endpoints = {path.encode(): endpoint for endpoint in ENDPOINTS for path in endpoint.paths}
        self._hosts = _hosts(settings)
        self.good_hosts: set[bytes] = set()
        """Values of `Host` that were checked."""
        self.max_headers: Final = 100
        self.long_length = min(len(str(_LONG_BODY)), len(str(settings.max_body_bytes)))
        """A `Content-Length` of fewer digits needs no look before the body is there."""
        self.notable = frozenset({b"expect"} | ({b"origin"} if settings.cors_origins else set()))
        """Headers for which `welcome` must look at the head."""
        self._origins = frozenset(origin.encode() for origin in settings.cors_origins)
        self._heads: dict[int, bytes] = {}
        self._date: list[Header] | None = None
        self._connections: WeakSet[ClientConnection] = WeakSet()
        self._watch: asyncio.TimerHandle | None = None

    def config(self, app: ASGIApp) -> uvicorn.Config:
        """How uvicorn must run the gateway's app."""
        settings = self.settings
        return uvicorn.Config(
            app,
            http=type("WorkerConnection", (ClientConnection,), {"listener": self}),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            backlog=4096,
            ssl_certfile=settings.tls_certificate,
            ssl_keyfile=settings.tls_key,
            timeout_graceful_shutdown=ceil(settings.drain_timeout_s),
        )

    # --- for connections ----------------------------------------------------------------------------------------------

    def joined(self, connection: ClientConnection) -> Seconds:
        """A client has connected; returns the time."""
        self._connections.add(connection)
        if self._watch is None:
            self._watch = connection.loop.call_later(_LOOK_EVERY, self._look, connection.loop)
        return self.clock.monotonic()

    def endpoint_of(self, url: bytes) -> Endpoint | None:
        """The inference endpoint at this request target."""
        endpoint = self._endpoints.get(url)
        if endpoint is None and not _PLAIN_PATH.fullmatch(url):
            try:
                path = httptools.parse_url(url).path
            except httptools.HttpParserInvalidURLError as exc:
                raise BadRequestError("The request's target is not a URL.") from exc
            if not path or not path.isascii():
                raise BadRequestError("The request's target is not a URL with a path in ASCII; escape other letters.")
            endpoint = self._endpoints.get(unquote_to_bytes(path))
        return endpoint

    def check_head(self, url: bytes, headers: list[Header], version: str) -> None:
        """Refuse a head that is too large, is ambiguous, names a foreign host, or speaks another HTTP."""
        size = len(url) + sum(len(name) + len(value) + _HEADER_FRAMING for name, value in headers)
        if size > self.settings.max_header_bytes or len(headers) > self.max_headers:
            raise self.headers_too_large()
        if version not in {"1.1", "1.0"}:
            raise BadRequestError(f"HTTP/{version} is not spoken here; use HTTP/1.1.")
        names = [name for name, _ in headers]
        for name in _ONLY_ONCE:
            if names.count(name) > 1:
                raise BadRequestError(f"The header `{name.decode()}` is there more than once.")
        host = dict(headers).get(b"host")
        if host is not None:
            self._check_host(host)
        elif version == "1.1":
            raise BadRequestError("The request has no `Host` header.")

    def welcome(self, client: Client) -> None:
        """What the head decides already.

        A body that will be too long, a stranger's body if it may be long, a browser's origin, a wish for a go-ahead.
        """
        fields = client.fields
        coding = fields.get(b"transfer-encoding")
        if coding is not None and coding.lower() != b"chunked":
            client.refuse(BadRequestError("The only `Transfer-Encoding` that is understood here is `chunked`."))
        digits = fields.get(b"content-length", _UNKNOWN_LENGTH).lstrip(b"0") or b"0"
        length = int(digits[:_MAX_DIGITS])
        if length > self.settings.max_body_bytes and coding is None:
            client.refuse(body_too_large(self.settings.max_body_bytes))
        elif length >= _LONG_BODY:
            try:
                self._check_key(fields)
            except RequestError as error:
                client.refuse(error)
        if self._origins and (origin := fields.get(b"origin")) is not None:
            client.cors = self._cors(origin)
        if b"expect" in fields:
            client.expects_continue = fields[b"expect"].lower() == b"100-continue"

    def begin_of_head(self, status: int, state: ServerState) -> bytes:
        """The status line and the headers that every answer has."""
        if state.default_headers is not self._date:
            self._date = state.default_headers
            self._heads.clear()
        head = self._heads.get(status)
        if head is None:
            lines = b"".join(b"%b: %b\r\n" % header for header in state.default_headers)
            head = self._heads[status] = STATUS_LINE[status] + lines
        return head

    def headers_too_large(self) -> HeadersTooLargeError:
        bound = self.settings.max_header_bytes
        return HeadersTooLargeError(
            f"The request's head is over {bound} bytes (`gateway.max_header_bytes`) or {self.max_headers} headers."
        )

    # --- inside -------------------------------------------------------------------------------------------------------

    def _check_host(self, host: bytes) -> None:
        name = host.lower()
        name = name.partition(b"]")[0] + b"]" if name.startswith(b"[") else name.partition(b":")[0]
        if self._hosts is not None and name not in self._hosts:
            shown = host[:100].decode("latin-1")
            raise BadRequestError(f"`Host: {shown}` is not a name of this gateway (`gateway.allowed_hosts`).")
        if len(self.good_hosts) < _MAX_KNOWN:
            self.good_hosts.add(host)

    def _cors(self, origin: bytes) -> bytes:
        if origin not in self._origins and b"*" not in self._origins:
            return b""
        return b"access-control-allow-origin: %b\r\nvary: origin\r\naccess-control-expose-headers: *\r\n" % origin

    def left(self, connection: ClientConnection) -> None:
        """A client has gone."""
        self._connections.discard(connection)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        now = self.clock.monotonic()
        connections = list(self._connections)
        self._watch = loop.call_later(_LOOK_EVERY, self._look, loop) if connections else None
        for connection in connections:
            try:
                connection.look(now)
            except Exception:  # noqa: BLE001  # a defect with one connection must not end the watch over all
                _log.exception("a defect of the gateway while it looked after a connection")


def _hosts(settings: GatewaySettings) -> frozenset[bytes] | None:
    """The names that `Host` may give; None: any."""
    if settings.allowed_hosts:
        return frozenset(name.lower().encode() for name in settings.allowed_hosts)
    if settings.host == "localhost" or ip_address(settings.host).is_loopback:
        return _LOOPBACK_NAMES | {settings.host.encode()}
    return None
