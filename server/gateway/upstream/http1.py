"""Upstream over HTTP/1.1, on llhttp's parser and asyncio's protocols."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from server.clock import Clock
from server.errors import RequestError, UpstreamFailedError, UpstreamTimeoutError
from server.gateway.drive import Signal
from server.gateway.upstream.connection import Connection
from server.gateway.upstream.pool import Pool
from server.gateway.upstream.splice import Splice
from server.gateway.upstream.upstream import Sink
from server.units import Seconds
from server.wire import ReplicaAddress

__all__ = ["Http1Exchange", "Http1Upstream", "UpstreamLimits"]

STALE_CONNECTION: Final = "stale_connection"
_STALE_WITHIN: Final = Seconds(0.5)
"""What is lost later was lost at work."""
_NO_HEADERS: Final[Mapping[bytes, bytes]] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamLimits:
    """Bounds of every exchange."""

    connections: int
    """To one replica."""
    connect_timeout: Seconds
    first_byte_timeout: Seconds
    """Of a streamed answer."""
    whole_answer_timeout: Seconds
    """Of any other, whose first byte comes when all tokens are there."""
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

    def exchange(self, replica: ReplicaAddress, path: str, body: bytes, *, whole: bool) -> Http1Exchange:
        return Http1Exchange(self, self._pool(replica), path, body, whole=whole)

    def retain(self, replicas: Iterable[ReplicaAddress]) -> None:
        known = {replica.name: replica for replica in replicas}
        for name, pool in list(self._pools.items()):
            if name in known and _same_place(pool.address, known[name]):
                pool.address = known[name]  # so that `_pool` need not compare
            else:
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

    status = 0
    headers: Mapping[bytes, bytes] = _NO_HEADERS
    sent_at: Seconds | None = None
    first_byte_at: Seconds | None = None
    done_at: Seconds | None = None
    resent = 0
    _connection: Connection | None = None
    _sink: Sink | None = None
    _size = 0
    _paused = False
    _ended = False
    _error: RequestError | None = None
    _last_at: Seconds
    """The gateway's own last sign of life: it sent, or read on."""

    def __init__(self, upstream: Http1Upstream, pool: Pool, path: str, body: bytes, *, whole: bool) -> None:
        self._upstream = upstream
        self._pool = pool
        self._path = path
        self._body = body
        self._whole = whole
        self._pieces: list[tuple[Seconds, bytes]] = []
        self._last_at = Seconds(0.0)
        self._changed = Signal()

    async def begin(self) -> None:
        self._send(self._pool.take_now() or await self._pool.take())
        while not self.status:
            if self._error is None:
                await self._changed
            elif self._went_stale():
                self.close()
                self._error = self.sent_at = None
                self.resent += 1
                self._upstream.retries[STALE_CONNECTION] += 1
                self._send(await self._pool.take(fresh=True))
            else:
                raise self._error

    def whole_now(self) -> bytes | None:
        return self._pieces[0][1] if self._ended and len(self._pieces) == 1 else None

    async def whole(self, limit: int) -> tuple[bytes, bool]:
        while not self._ended and self._size <= limit:
            if self._error is not None:
                raise self._error
            await self._changed
        pieces = self._pieces
        data = pieces[0][1] if len(pieces) == 1 else b"".join([piece for _, piece in pieces])
        return data, self._ended

    async def pipe(self, sink: Sink, splice: Splice | None = None) -> None:
        for at, piece in self._pieces:
            sink(at, piece)
        self._pieces.clear()
        self._sink = sink
        if self._connection is not None and splice is not None:
            self._connection.insert(splice)
        while not self._ended:
            if self._error is not None:
                raise self._error
            await self._changed

    def pause(self) -> None:
        self._paused = True
        if self._connection is not None:
            self._connection.pause()

    def resume(self) -> None:
        self._paused = False
        self._last_at = self._upstream.clock.monotonic()  # the silence was ours
        if self._connection is not None:
            self._connection.resume()

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self.first_byte_at = connection.began_at
            self._sink = None
            self._error = None  # its traceback holds what holds it
            self._upstream.ended(self)
            self._pool.give(connection, keep=self._ended and not self._paused)

    def _send(self, connection: Connection) -> None:
        self._connection = connection
        self._last_at = self._upstream.clock.monotonic()
        self._upstream.started(self)
        connection.send(self, b"%b%d\r\n\r\n" % (self._pool.head(self._path), len(self._body)), self._body)

    def _went_stale(self) -> bool:
        """An engine may close a kept connection just when the next request leaves: then it has not seen it."""
        return (
            isinstance(self._error, UpstreamFailedError)
            and self._connection is not None
            and self._connection.began_at is None
            and self._upstream.clock.monotonic() - self._last_at < _STALE_WITHIN
            and not self._connection.fresh
        )

    def check_time(self, now: Seconds) -> None:
        """Fail if the engine has been silent for too long."""
        limits, connection = self._upstream.limits, self._connection
        if self._ended or self._paused or self._error is not None or connection is None:
            return
        silent = now - max(self._last_at, connection.heard_at)
        if self.status:
            bound, what = limits.idle_timeout, "fell silent in the middle of its answer for {:g} s"
        elif self._whole:
            bound, what = limits.whole_answer_timeout, "did not answer within {:g} s"
        else:
            bound, what = limits.first_byte_timeout, "did not begin to answer within {:g} s"
        if silent >= bound:
            self._error = UpstreamTimeoutError(
                f"The engine {self._pool.address.name} {what.format(bound)}. Try again, or ask for less."
            )
            self._changed.set()

    # --- Receiver -----------------------------------------------------------------------------------------------------

    def sent(self, at: Seconds) -> None:
        self.sent_at = at

    def head(self, status: int, headers: Mapping[bytes, bytes]) -> None:
        self.status = status
        self.headers = headers

    def arrived(self, at: Seconds, data: bytes, ended: bool) -> None:
        if ended:
            self._ended = True
            self.done_at = at
        sink = self._sink
        if sink is None:
            if data:
                self._pieces.append((at, data))
                self._size += len(data)
            self._changed.set()
        else:
            if data:
                sink(at, data)
            if ended:
                self._changed.set()

    def lost(self, why: str) -> None:
        when = "before it answered" if self.status == 0 else "in the middle of its answer"
        self._error = UpstreamFailedError(f"The engine {self._pool.address.name} {why} {when}. Try again.")
        self._changed.set()


def _same_place(one: ReplicaAddress, other: ReplicaAddress) -> bool:
    """Whether connections and request heads for one serve the other as well."""
    return (one.host, one.port, one.tls, one.path_prefix, one.api_key) == (
        other.host,
        other.port,
        other.tls,
        other.path_prefix,
        other.api_key,
    )
