"""The control plane's end of the bus: batches in, news out."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable

from server.errors import WireError
from server.units import Seconds
from server.wire import (
    LENGTH_BYTES,
    PROTOCOL_VERSION,
    Ack,
    Batch,
    Hello,
    LeaseWanted,
    News,
    ToControl,
    ToWorker,
    decode_to_control,
    encode,
    frame_length,
)

__all__ = ["Bus"]

_log = logging.getLogger(__name__)

_MAX_UNSENT_BYTES = 16 * 2**20
"""A worker that does not read is cut at this; it connects again and gets the newest of all."""


class Bus:
    """Serves the workers on the Unix socket that the launcher holds.

    `take` gets every batch, in order for each worker, before the batch is acknowledged: when it returns, the control
    plane holds the batch, unless it says False. Then `acknowledge` must follow, or the worker sends the batch again to
    the next control plane. `joined` and `left` hear of workers that come and go, `lease_wanted` of parts of a key's
    limits that a worker asks for or gives back.
    """

    def __init__(
        self,
        listener: socket.socket,
        *,
        take: Callable[[Batch, Hello], bool | None],
        joined: Callable[[Hello], None],
        left: Callable[[Hello], None],
        lease_wanted: Callable[[LeaseWanted, Hello], None],
    ) -> None:
        self._listener = listener
        self._take = take
        self._joined = joined
        self._left = left
        self._lease_wanted = lease_wanted
        self._news: dict[type[News], News] = {}
        self._over = asyncio.Event()
        self._said_all = False
        self._hung_up = asyncio.Event()
        self._connections: dict[asyncio.StreamWriter, Hello] = {}

    async def serve(self) -> None:
        """Run until cancelled."""
        server = await asyncio.start_unix_server(self._connection, sock=self._listener)
        try:
            await self._over.wait()
            server.close()  # workers that come now wait for the next control plane
            await asyncio.Event().wait()
        finally:
            server.close()
            for writer in list(self._connections):
                writer.close()

    def publish(self, news: News) -> None:
        """Send `news` to every worker, and the newest of its kind to each that connects from now on."""
        self._news[type(news)] = news
        if self._over.is_set():
            return
        frame = encode(news)
        for writer in list(self._connections):
            self._write(writer, frame)

    def acknowledge(self, worker: Hello, seq: int) -> None:
        """The control plane holds the worker's batch `seq` and all before it; heard on its newest connection."""
        if self._said_all:
            return
        for writer, hello in reversed(self._connections.items()):
            if hello.boot == worker.boot:
                self._send(writer, Ack(seq=seq))
                return

    def take_no_more(self) -> None:
        """The first half of a hand-over: what was taken can still be acknowledged, and then `hand_over` follows."""
        self._over.set()

    async def hand_over(self, bound: Seconds) -> None:
        """Take nothing more; returns once every worker has its acknowledgements and has hung up, or at the bound.

        What a worker still sends is not acknowledged: the next control plane gets it again, and nobody else has it.
        Nor is what was taken and not acknowledged until now: see `take_no_more`.
        """
        self.take_no_more()
        self._said_all = True
        for writer in list(self._connections):
            writer.write_eof()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(bound):
                while self._connections:
                    self._hung_up.clear()
                    await self._hung_up.wait()

    def tell(self, worker: Hello, message: ToWorker) -> None:
        """Send to one worker; to one that has gone, or after a hand-over, nothing."""
        for writer, hello in self._connections.items():
            if hello is worker and not self._over.is_set():
                self._send(writer, message)
                return

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hello: Hello | None = None
        try:
            hello = _checked_hello(await _read(reader))
            self._connections[writer] = hello
            self._joined(hello)
            self._greet(writer)
            while True:
                message = await _read(reader)
                if not self._over.is_set():
                    self._hear(message, hello, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the worker has gone; the launcher starts another
        except WireError as exc:
            _log.error("bus: %s The connection is closed.", exc)
        finally:
            self._connections.pop(writer, None)
            self._hung_up.set()
            if hello is not None:
                self._left(hello)
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    def _greet(self, writer: asyncio.StreamWriter) -> None:
        if self._said_all:
            writer.write_eof()
        elif not self._over.is_set():
            for news in self._news.values():
                self._send(writer, news)

    def _hear(self, message: ToControl, worker: Hello, writer: asyncio.StreamWriter) -> None:
        if isinstance(message, Batch):
            if self._take(message, worker) is not False:
                self._send(writer, Ack(seq=message.seq))
        elif isinstance(message, LeaseWanted):
            self._lease_wanted(message, worker)

    def _send(self, writer: asyncio.StreamWriter, message: ToWorker) -> None:
        self._write(writer, encode(message))

    def _write(self, writer: asyncio.StreamWriter, frame: bytes) -> None:
        if writer.transport.get_write_buffer_size() > _MAX_UNSENT_BYTES:
            _log.error("bus: worker %s does not read; cutting it off", self._connections.get(writer))
            writer.transport.abort()
            return
        writer.write(frame)


async def _read(reader: asyncio.StreamReader) -> ToControl:
    length = frame_length(await reader.readexactly(LENGTH_BYTES))
    return decode_to_control(await reader.readexactly(length))


def _checked_hello(message: ToControl) -> Hello:
    if not isinstance(message, Hello):
        raise WireError("A worker did not introduce itself.")
    if message.version != PROTOCOL_VERSION:
        raise WireError(
            f"A worker speaks version {message.version} of the bus, this control plane {PROTOCOL_VERSION}: "
            "restart the gateway after an upgrade."
        )
    return message
