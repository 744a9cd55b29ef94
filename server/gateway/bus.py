"""The worker's end of the bus: news comes in, batches go out, whoever the control plane is.

The control plane may be away, or be another one on the next connection: the client connects again and again, says
`Hello`, and sends every batch that was not acknowledged. Requests never wait for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, Protocol

from server.errors import WireError
from server.gateway.records import Recorder
from server.units import Seconds
from server.wire import (
    LENGTH_BYTES,
    Ack,
    Batch,
    Budgets,
    Hello,
    Lease,
    LeaseWanted,
    News,
    Prices,
    Recall,
    Snapshot,
    decode_to_worker,
    encode,
    frame_length,
)

__all__ = ["FLUSH_EVERY", "BusClient", "Leaseholder"]

FLUSH_EVERY: Final = Seconds(0.25)

_FIRST_BACKOFF: Final = 0.02
_MAX_BACKOFF: Final = 0.5

_log = logging.getLogger("wattgate.gateway")


class Leaseholder(Protocol):
    """Who asks the control plane for parts of the keys' limits, by `BusClient.tell`."""

    def linked(self) -> None:
        """A control plane took the connection; it knows nothing of this worker yet."""

    def unlinked(self) -> None:
        """The control plane has gone."""

    def heard(self, message: Lease | Recall) -> None:
        """What it says."""


class BusClient:
    """Connects a worker's recorder and routing to the control plane for as long as `run` runs."""

    def __init__(  # noqa: PLR0913  # what it connects, and its two clocks
        self,
        path: Path,
        hello: Hello,
        recorder: Recorder,
        *,
        on_news: Callable[[News], None],
        leases: Leaseholder | None = None,
        flush_every: Seconds = FLUSH_EVERY,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._pause = pause
        self._path = path
        self._hello = hello
        self._recorder = recorder
        self._on_news = on_news
        self._leases = leases
        self._writer: asyncio.StreamWriter | None = None
        self._flush_every = flush_every
        self._acknowledged = asyncio.Event()
        self._cut = asyncio.Event()
        self._heard = False

    async def run(self) -> None:
        """Stay connected until cancelled."""
        backoff = _FIRST_BACKOFF
        while True:
            try:
                reader, writer = await asyncio.open_unix_connection(self._path)
            except OSError:
                pass
            else:
                if await self._converse(reader, writer):
                    backoff = _FIRST_BACKOFF
            await self._pause(backoff)
            backoff = min(2 * backoff, _MAX_BACKOFF)

    def tell(self, message: LeaseWanted) -> None:
        """Send at once, ahead of what waits for the next batch; without a control plane it is lost."""
        if self._writer is not None:
            self._writer.write(encode(message))

    async def flush(self, timeout: Seconds) -> bool:
        """Cut what is pending and wait until everything is acknowledged; False if that took too long."""
        self._recorder.cut(even_if_empty=False)
        self._cut.set()
        try:
            async with asyncio.timeout(timeout):
                while not self._recorder.all_acknowledged:
                    self._acknowledged.clear()
                    await self._acknowledged.wait()
        except TimeoutError:
            return False
        return True

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Talk until the control plane is gone; False if it never said a word (of another version, say)."""
        self._heard = False
        writer.write(encode(self._hello))
        self._writer = writer
        if self._leases is not None:
            self._leases.linked()
        # Not a TaskGroup: one whose tasks fail in the turn in which it is cancelled forgets the cancellation.
        both = [asyncio.ensure_future(self._receive(reader)), asyncio.ensure_future(self._send(writer))]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in both:
                task.cancel()
            await asyncio.wait(both)
            self._writer = None
            writer.close()
            if self._leases is not None:
                self._leases.unlinked()
        for task in both:
            problem = None if task.cancelled() else task.exception()
            if isinstance(problem, OSError | EOFError | WireError):
                _log.warning("the control plane is gone (%s); serving on with the last routing table", problem)
            elif problem is not None:
                raise problem
        return self._heard

    async def _receive(self, reader: asyncio.StreamReader) -> None:
        while True:
            length = frame_length(await reader.readexactly(LENGTH_BYTES))
            message = decode_to_worker(await reader.readexactly(length))
            self._heard = True
            match message:
                case Snapshot() | Prices() | Budgets():
                    self._on_news(message)
                case Ack():
                    self._recorder.acknowledge(message.seq)
                    self._acknowledged.set()
                case Lease() | Recall():
                    if self._leases is not None:
                        self._leases.heard(message)

    async def _send(self, writer: asyncio.StreamWriter) -> None:
        sent = 0
        while True:
            for batch in self._recorder.after(sent):
                sent = batch.seq
                try:
                    writer.write(encode(batch))
                except WireError as exc:
                    self._give_up(batch, exc)
                await writer.drain()
            self._cut.clear()
            try:
                async with asyncio.timeout(self._flush_every):
                    await self._cut.wait()
            except TimeoutError:
                # Thousands of streams: let their chunks pass in between.
                while self._recorder.gather():  # noqa: ASYNC110  # nothing is waited for
                    await asyncio.sleep(0)
                self._recorder.cut(even_if_empty=True)

    def _give_up(self, batch: Batch, reason: WireError) -> None:
        """One that can never be sent must not hold up those behind it."""
        _log.error("%d records are lost: %s", len(batch.records), reason)
        self._recorder.give_up(batch.seq)
        self._acknowledged.set()
