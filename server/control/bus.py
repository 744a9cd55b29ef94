"""The control plane's end of the bus: batches in, snapshots out."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable

from server.errors import WireError
from server.wire import (
    LENGTH_BYTES,
    PROTOCOL_VERSION,
    Ack,
    Batch,
    Hello,
    Snapshot,
    ToControl,
    ToWorker,
    decode_to_control,
    encode,
    frame_length,
)

__all__ = ["Bus"]

_log = logging.getLogger(__name__)

_MAX_UNSENT_BYTES = 16 * 2**20
"""A worker that does not read is cut at this; it connects again and gets the newest snapshot."""


class Bus:
    """Serves the workers on the Unix socket that the launcher holds.

    `take` gets every batch, in order for each worker, before the batch is acknowledged: when it returns, the control
    plane holds the batch. `joined` and `left` hear of workers that come and go.
    """

    def __init__(
        self,
        listener: socket.socket,
        *,
        take: Callable[[Batch, Hello], None],
        joined: Callable[[Hello], None],
        left: Callable[[Hello], None],
    ) -> None:
        self._listener = listener
        self._take = take
        self._joined = joined
        self._left = left
        self._snapshot: Snapshot | None = None
        self._connections: dict[asyncio.StreamWriter, Hello] = {}

    async def serve(self) -> None:
        """Run until cancelled."""
        server = await asyncio.start_unix_server(self._connection, sock=self._listener)
        try:
            async with server:
                await server.serve_forever()
        finally:
            for writer in list(self._connections):
                writer.close()

    def publish(self, snapshot: Snapshot) -> None:
        """Send `snapshot` to every worker, and to each that connects from now on."""
        self._snapshot = snapshot
        frame = encode(snapshot)
        for writer in list(self._connections):
            self._write(writer, frame)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hello: Hello | None = None
        try:
            hello = _checked_hello(await _read(reader))
            self._connections[writer] = hello
            self._joined(hello)
            if self._snapshot is not None:
                self._send(writer, self._snapshot)
            while True:
                message = await _read(reader)
                if isinstance(message, Batch):
                    self._take(message, hello)
                    self._send(writer, Ack(seq=message.seq))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the worker has gone; the launcher starts another
        except WireError as exc:
            _log.error("bus: %s The connection is closed.", exc)
        finally:
            self._connections.pop(writer, None)
            if hello is not None:
                self._left(hello)
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

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
