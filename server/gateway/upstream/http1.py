"""Upstream over HTTP/1.1, on llhttp's parser and asyncio's protocols."""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from server.clock import Clock
from server.errors import RequestError, UpstreamFailedError, UpstreamTimeoutError
from server.gateway.upstream.connection import Connection
from server.gateway.upstream.pool import Pool
from server.units import Seconds
from server.wire import ReplicaAddress

__all__ = ["Http1Exchange", "Http1Upstream", "UpstreamLimits"]

STALE_CONNECTION: Final = "stale_connection"

_HIGH_WATER: Final = 64 * 1024
"""Bytes of an answer that wait for the client; more make the engine wait."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamLimits:
    """Bounds of every exchange."""

    connections: int
    """To one replica."""
    connect_timeout: Seconds
    first_byte_timeout: Seconds
    idle_timeout: Seconds


class Http1Upstream:
    """Keep-alive pools by replica, and one sweep over all running exchanges for what takes too long."""

    def __init__(self, limits: UpstreamLimits, *, clock: Clock, tls: ssl.SSLContext | None = None) -> None:
        """`tls`: for replicas that ask for it; by default certificates are verified as the system trusts them."""
        self.limits = limits
        self.clock = clock
        self.retries: dict[str, int] = {STALE_CONNECTION: 0}
        self._tls = tls
        self._pools: dict[str, Pool] = {}
        self._running: set[Http1Exchange] = set()
        self._sweep_timer: asyncio.TimerHandle | None = None
        # One timer for all: a timer a chunk would cost more than the chunk.
        shortest = min(limits.first_byte_timeout, limits.idle_timeout)
        self._sweep_every = min(1.0, shortest / 4)

    def exchange(self, replica: ReplicaAddress, path: str, body: bytes) -> Http1Exchange:
        return Http1Exchange(self, self._pool(replica), path, body)

    def retain(self, replicas: Iterable[ReplicaAddress]) -> None:
        known = {replica.name: replica for replica in replicas}
        for name, pool in list(self._pools.items()):
            if name not in known or not _same_place(pool.address, known[name]):
                self._pools.pop(name).close()

    async def aclose(self) -> None:
        if self._sweep_timer is not None:
            self._sweep_timer.cancel()
            self._sweep_timer = None
        self.retain(())
        await asyncio.sleep(0)  # aborted transports close in the loop's next turn

    def started(self, exchange: Http1Exchange) -> None:
        """Watch this exchange's time until it has ended."""
        self._running.add(exchange)
        if self._sweep_timer is None:
            self._sweep_timer = asyncio.get_running_loop().call_later(self._sweep_every, self._sweep)

    def ended(self, exchange: Http1Exchange) -> None:
        self._running.discard(exchange)

    def _sweep(self) -> None:
        now = self.clock.monotonic()
        for exchange in list(self._running):
            exchange.check_time(now)
        again = bool(self._running)
        self._sweep_timer = asyncio.get_running_loop().call_later(self._sweep_every, self._sweep) if again else None

    def _pool(self, replica: ReplicaAddress) -> Pool:
        pool = self._pools.get(replica.name)
        if pool is not None and (pool.address is replica or _same_place(pool.address, replica)):
            return pool
        if pool is not None:
            pool.close()
        if replica.tls and self._tls is None:
            self._tls = ssl.create_default_context()
        pool = self._pools[replica.name] = Pool(
            replica,
            bound=self.limits.connections,
            timeout=self.limits.connect_timeout,
            tls=self._tls if replica.tls else None,
            clock=self.clock,
        )
        return pool


class Http1Exchange:
    """One request and its answer; see `Exchange`."""

    __slots__ = (
        "_body",
        "_connection",
        "_ended",
        "_error",
        "_held",
        "_last_at",
        "_path",
        "_paused",
        "_pool",
        "_queue",
        "_upstream",
        "_waiter",
        "done_at",
        "first_byte_at",
        "headers",
        "retries",
        "sent_at",
        "status",
    )

    def __init__(self, upstream: Http1Upstream, pool: Pool, path: str, body: bytes) -> None:
        self._upstream = upstream
        self._pool = pool
        self._path = path
        self._body = body
        self._connection: Connection | None = None
        self._queue: deque[tuple[Seconds, bytes]] = deque()
        self._held = 0
        self._paused = self._ended = False
        self._waiter: asyncio.Future[None] | None = None
        self._error: RequestError | None = None
        self._last_at = Seconds(0.0)
        self.sent_at: Seconds | None = None
        self.first_byte_at: Seconds | None = None
        self.done_at: Seconds | None = None
        self.retries = 0
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []

    async def __aenter__(self) -> Self:
        try:
            await self._send(await self._pool.take())
            while self._went_stale():
                self._give_back()
                self._error = None
                self.retries += 1
                self._upstream.retries[STALE_CONNECTION] += 1
                await self._send(await self._pool.take(fresh=True))
            if self.status == 0 and self._error is not None:
                raise self._error
        except BaseException:
            self._give_back()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._give_back()

    async def read(self) -> tuple[Seconds, bytes] | None:
        while not self._queue:
            if self._error is not None:
                raise self._error
            if self._ended:
                return None
            await self._wait()
        item = self._queue.popleft()
        self._held -= len(item[1])
        if self._paused and self._held <= _HIGH_WATER // 2 and self._connection is not None:
            self._paused = False
            self._last_at = self._upstream.clock.monotonic()  # the silence was ours
            self._connection.resume()
        return item

    async def _send(self, connection: Connection) -> None:
        self._connection = connection
        self._last_at = self._upstream.clock.monotonic()
        self._upstream.started(self)
        head = b"%b%d\r\n\r\n" % (self._pool.head(self._path), len(self._body))
        connection.send(self, head, self._body)
        while self.status == 0 and self._error is None:
            await self._wait()

    def _went_stale(self) -> bool:
        """An engine may close a kept connection just when the next request leaves: then it has not seen it."""
        return (
            isinstance(self._error, UpstreamFailedError)
            and self.first_byte_at is None
            and self._connection is not None
            and not self._connection.fresh
        )

    def _give_back(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self._upstream.ended(self)
            self._pool.give(connection, keep=self._ended and not self._paused)

    async def _wait(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        await self._waiter

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def check_time(self, now: Seconds) -> None:
        """Fail if the engine has been silent for too long."""
        limits, silent = self._upstream.limits, now - self._last_at
        if self._ended or self._paused or self._error is not None:
            return
        bound = limits.first_byte_timeout if self.status == 0 else limits.idle_timeout
        if silent >= bound:
            when = "did not begin to answer" if self.status == 0 else "fell silent in the middle of its answer"
            self._error = UpstreamTimeoutError(
                f"The engine {self._pool.address.name} {when} within {bound:g} s. Try again, or ask for less."
            )
            self._wake()

    # --- Receiver -----------------------------------------------------------------------------------------------------

    def sent(self, at: Seconds) -> None:
        self.sent_at = at

    def began(self, at: Seconds) -> None:
        self.first_byte_at = at

    def head(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self.status = status
        self.headers = headers
        self._wake()

    def body(self, at: Seconds, data: bytes) -> None:
        self._last_at = at
        self._queue.append((at, data))
        self._held += len(data)
        if self._held > _HIGH_WATER and not self._paused and self._connection is not None:
            self._paused = True
            self._connection.pause()
        self._wake()

    def end(self, at: Seconds) -> None:
        self.done_at = at
        self._ended = True
        self._wake()

    def lost(self, why: str) -> None:
        when = "before it answered" if self.status == 0 else "in the middle of its answer"
        self._error = UpstreamFailedError(f"The engine {self._pool.address.name} {why} {when}. Try again.")
        self._wake()


def _same_place(one: ReplicaAddress, other: ReplicaAddress) -> bool:
    """Whether connections and request heads for one serve the other as well."""
    return (one.host, one.port, one.tls, one.path_prefix, one.api_key) == (
        other.host,
        other.port,
        other.tls,
        other.path_prefix,
        other.api_key,
    )
