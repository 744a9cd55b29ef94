"""The connections to one replica: kept alive, bounded, handed out in turn."""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final, cast

from server.clock import Clock
from server.errors import ContendedError, UpstreamFailedError, UpstreamTimeoutError
from server.gateway.seats import Seats
from server.gateway.upstream.connection import Connection
from server.units import Seconds
from server.wire import ReplicaAddress

__all__ = ["Pool"]

MAX_IDLE: Final = Seconds(4.0)
"""uvicorn, which vLLM runs on, closes connections that were idle for 5 s: be the first."""

_COME_BACK = Seconds(1.0)


class Pool:
    """Lends connections to one replica, at most `bound` at a time."""

    def __init__(
        self, address: ReplicaAddress, *, bound: int, timeout: Seconds, tls: ssl.SSLContext | None, clock: Clock
    ) -> None:
        self.address = address
        self._bound = bound
        self._timeout = timeout
        self._tls = tls
        self._clock = clock
        self._idle: deque[Connection] = deque()
        """The most recently used is last, and is taken first."""
        self._seats = Seats(bound)
        self._heads: dict[str, bytes] = {}
        self._closed = False

    def head(self, path: str) -> bytes:
        """The request's head up to the value of Content-Length; the same bytes every time."""
        head = self._heads.get(path)
        if head is None:
            head = self._heads[path] = _head(self.address, path)
        return head

    def take_now(self) -> Connection | None:
        """An open connection if one lies idle, to be given back with `give`."""
        if not self._idle or not self._seats.take_now():
            return None
        connection = self._from_idle()
        if connection is None:
            self._seats.leave()
        return connection

    async def take(self, *, fresh: bool = False) -> Connection:
        """A connection to be given back with `give`; the wait for it and for its opening is bounded.

        `fresh`: not one that was used before.
        """
        await self._take_seat()
        try:
            return (None if fresh else self._from_idle()) or await self._opened()
        except BaseException:
            self._seats.leave()
            raise

    def give(self, connection: Connection, *, keep: bool) -> None:
        """The exchange is over; the connection is kept for the next one or closed at once."""
        if keep and connection.reusable and not self._closed:
            connection.release()
            self._idle.append(connection)
            self._drop_one_stale()
        else:
            connection.abort()
        self._seats.leave()

    def close(self) -> None:
        """Close what is idle now and what is lent when it comes back."""
        self._closed = True
        while self._idle:
            self._idle.pop().abort()

    def _from_idle(self) -> Connection | None:
        oldest = self._clock.monotonic() - MAX_IDLE
        while self._idle:
            connection = self._idle.pop()
            if connection.reusable and connection.idle_since >= oldest:
                return connection
            connection.abort()
        return None

    def _drop_one_stale(self) -> None:
        """After a peak, what is no longer needed goes with the requests that follow, one each."""
        first, last = self._idle[0], self._idle[-1]
        if not first.reusable or first.idle_since < last.idle_since - MAX_IDLE:
            self._idle.popleft().abort()

    async def _opened(self) -> Connection:
        """A new connection, opened by a task of its own: whoever waits here may have none."""
        opening = asyncio.get_running_loop().create_task(self._open())
        try:
            return await opening
        except BaseException:
            opening.add_done_callback(_close_unwanted)
            raise

    async def _open(self) -> Connection:
        where, loop = self.address, asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._timeout):
                _, opened = await loop.create_connection(
                    cast("Callable[[], asyncio.Protocol]", partial(Connection, self._clock)),
                    *(where.host, where.port),
                    ssl=self._tls,
                )
        except TimeoutError as exc:
            raise UpstreamTimeoutError(
                f"The engine {where.name} did not accept a connection within {self._timeout:g} s. Try again later.",
                retry_after=_COME_BACK,
            ) from exc
        except OSError as exc:
            raise UpstreamFailedError(
                f"The engine {where.name} cannot be reached ({exc.strerror or exc}). Try again later.",
                retry_after=_COME_BACK,
            ) from exc
        return cast("Connection", opened)

    async def _take_seat(self) -> None:
        if self._seats.take_now():
            return
        try:
            await self._seats.take(self._timeout)
        except TimeoutError as exc:
            raise ContendedError(
                f"All {self._bound} connections to the engine {self.address.name} are busy. Try again later.",
                retry_after=_COME_BACK,
            ) from exc


def _close_unwanted(opening: asyncio.Task[Connection]) -> None:
    """Nobody waits for this connection any more, but it came."""
    if not opening.cancelled() and opening.exception() is None:
        opening.result().abort()


def _head(address: ReplicaAddress, path: str) -> bytes:
    host = f"[{address.host}]" if ":" in address.host else address.host
    lines = [
        f"POST {address.path_prefix}{path} HTTP/1.1",
        f"Host: {host}:{address.port}",
        "User-Agent: wattgate",
        "Accept: */*",
        "Accept-Encoding: identity",
        "Content-Type: application/json",
    ]
    if address.api_key is not None:
        lines.append(f"Authorization: Bearer {address.api_key}")
    return ("\r\n".join(lines) + "\r\nContent-Length: ").encode("latin-1")
