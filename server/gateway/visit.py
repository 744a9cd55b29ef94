"""One client's visit: its connection, what it is sent, and what is written down about it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from math import ceil
from types import TracebackType
from typing import Final, Self

import msgspec
from starlette.types import Scope, Send

from server.errors import NoCapacityError, RequestError, UpstreamFailedError, UpstreamTimeoutError
from server.gateway.listener import client_of
from server.gateway.openai.errors import error_event
from server.gateway.trace import Trace
from server.gateway.worker import Worker
from server.units import Seconds
from server.wire import Outcome

__all__ = ["Visit"]

Header = tuple[bytes, bytes]

_log = logging.getLogger("wattgate.gateway")

_JSON: Final[Header] = (b"content-type", b"application/json")
_REFUSALS: Final = frozenset({429, 503})


class Visit:
    """Holds the promises that no stage must think of, with `async with` around all stages.

    Whatever is raised inside is answered in OpenAI's form; a client that leaves cancels the block at once; the visit
    ends with exactly one record.
    """

    __slots__ = ("_client", "_left", "_send", "_sse", "_started", "_task", "_worker", "trace")

    def __init__(self, worker: Worker, trace: Trace, scope: Scope, send: Send) -> None:
        self._worker = worker
        self._client = client_of(scope)
        self._send = send
        self._task: asyncio.Task[None] | None = None
        self._left = self._started = self._sse = False
        self.trace = trace

    # --- to the client ------------------------------------------------------------------------------------------------

    def answer(self, status: int, headers: Iterable[Header], body: bytes) -> None:
        """Send a whole answer."""
        length = (b"content-length", b"%d" % len(body))
        self._client.answer(status, [*headers, length, *self._begin(status)], body)

    async def start(self, status: int, headers: Iterable[Header], *, sse: bool = False) -> None:
        """Send an answer's head; `sse` says that what follows are events."""
        self._sse = sse
        message = {"type": "http.response.start", "status": status, "headers": [*headers, *self._begin(status)]}
        await self._send(message)

    async def more(self, body: bytes) -> None:
        """Send a part of the body; waits while the client is slow."""
        await self._send({"type": "http.response.body", "body": body, "more_body": True})

    async def finish(self, body: bytes = b"") -> None:
        """Send the body's last part."""
        await self._send({"type": "http.response.body", "body": body, "more_body": False})

    def body_is_read(self) -> None:
        """From here on only the client's leaving can come."""
        self._client.body_is_read()

    def close_after_answer(self) -> None:
        """The connection is of no more use once the answer is sent."""
        self._client.close_after_answer()

    def _begin(self, status: int) -> list[Header]:
        """An answer begins; returns the headers that each has."""
        self._started = True
        self.trace.status = status
        ours: list[Header] = [(b"x-request-id", self.trace.id.encode())]
        if self.trace.exchange is not None and self.trace.target is not None:
            ours.append((b"x-wattgate-engine", self.trace.target.replica.name.encode()))
        return ours

    # --- structure ----------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        self._task = asyncio.current_task()
        self._worker.visits.began(self.trace.id)
        self._client.watch(self._leave)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self._client.unwatch()
        try:
            if error is not None:
                await self._explain(error)
        finally:
            self._worker.recorder.add(self.trace.record(self._worker.clock.monotonic()))
            self._worker.visits.ended(self.trace.id)
        return isinstance(error, (Exception, asyncio.CancelledError))

    def _leave(self) -> None:
        self._left = True
        if self._task is not None:
            self._task.cancel()

    async def _explain(self, error: BaseException) -> None:
        """Tell the client what went wrong, as far as that is still possible."""
        if self._left:
            self.trace.cancelled = True
            self.trace.outcome = Outcome.CANCELLED
            return
        if isinstance(error, asyncio.CancelledError):
            error = NoCapacityError(
                "The gateway is shutting down and could not wait for this answer. Send the request again.",
                retry_after=Seconds(1.0),
            )
        elif not isinstance(error, RequestError):
            _log.error("request %s hit a defect of the gateway", self.trace.id, exc_info=error)
            error = RequestError(f"The gateway failed; this is a defect. Please report request {self.trace.id}.")
        self.trace.outcome = _outcome(error, started=self._started)
        if not self._started:
            self._refuse(error)
        elif self._sse:
            self._client.close_after_answer()
            await self.finish(error_event(error))
        else:
            self._client.cut()

    def _refuse(self, error: RequestError) -> None:
        headers = [_JSON]
        if error.retry_after is not None:
            headers.append((b"retry-after", b"%d" % max(1, ceil(error.retry_after))))
        self.answer(error.status, headers, msgspec.json.encode(error.body()))


def _outcome(error: RequestError, *, started: bool) -> Outcome:
    if started:
        return Outcome.TRUNCATED
    if isinstance(error, UpstreamTimeoutError):
        return Outcome.UPSTREAM_TIMEOUT
    if isinstance(error, UpstreamFailedError):
        return Outcome.UPSTREAM_ERROR
    if error.status in _REFUSALS:
        return Outcome.REJECTED
    return Outcome.CLIENT_ERROR if error.status < 500 else Outcome.INTERNAL_ERROR
