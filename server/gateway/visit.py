"""One client's visit: what it is sent, what it holds, and what is written down about it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from math import ceil
from types import TracebackType
from typing import Final, Self

from server.errors import NoCapacityError, RequestError, UpstreamFailedError, UpstreamTimeoutError
from server.gateway.admission import Claim
from server.gateway.client import Client, Header
from server.gateway.limits import Charge
from server.gateway.routing.plan import Target
from server.gateway.trace import Trace
from server.gateway.upstream.upstream import Exchange
from server.gateway.worker import Worker
from server.units import Seconds
from server.wire import Outcome

__all__ = ["Visit", "header_lines"]

_log = logging.getLogger("wattgate.gateway")

_REFUSALS: Final = frozenset({429, 503})


def header_lines(headers: Iterable[Header]) -> bytes:
    """As they stand in a head."""
    return b"".join([b"%b: %b\r\n" % header for header in headers])


class Visit:
    """Holds the promises that no stage must think of, with `with` around all stages.

    Whatever is raised inside is answered in the endpoint's error form; what the request holds is given back; the visit
    ends with exactly one record.
    """

    __slots__ = ("_started", "_worker", "budget", "charge", "claim", "client", "trace")

    def __init__(self, worker: Worker, client: Client, trace: Trace) -> None:
        self._worker = worker
        self._started = False
        self.client = client
        self.trace = trace
        self.charge: Charge | None = None
        """What the request was charged to its key."""
        self.claim: Claim | None = None
        """The slot that it holds, or waits for."""
        self.budget = b""
        """The header line that tells of its tenant's budget."""

    # --- to the client ------------------------------------------------------------------------------------------------

    def answer(self, status: int, lines: bytes, body: bytes) -> None:
        """Send a whole answer; `lines` are header lines, each with its end."""
        self.client.answer(status, lines + self._begin(status), body)

    def start(self, status: int, lines: bytes, *, length: bytes | None = None) -> None:
        """Send an answer's head; `length`: how many bytes follow, if that is known."""
        self.client.start(status, lines + self._begin(status), length)

    def _begin(self, status: int) -> bytes:
        """An answer begins; returns the header lines that each has."""
        self._started = True
        trace = self.trace
        trace.status = status
        lines = b"x-request-id: %b\r\n" % trace.id.encode()
        if trace.exchange is not None and trace.target is not None:
            lines = b"%bx-wattgate-engine: %b\r\n" % (lines, trace.target.replica.name.encode())
        if self.charge is not None and self.charge.headers:
            lines += header_lines(self.charge.headers)
        return lines + self.budget if self.budget else lines

    # --- to the engine ------------------------------------------------------------------------------------------------

    def asks(self, target: Target, exchange: Exchange) -> None:
        """The request goes to this replica, and no longer to another."""
        if self.trace.exchange is not None:
            self._leave_replica()
        self.trace.target, self.trace.exchange = target, exchange
        self._worker.router.sent(target.replica.name)

    def _leave_replica(self) -> None:
        trace = self.trace
        if trace.exchange is not None and trace.target is not None:
            trace.exchange.close()
            self._worker.router.ended(trace.target.replica.name)

    # --- structure ----------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self._worker.visits.began(self.trace.id, self.client)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        try:
            if error is not None:
                self._explain(error)
        finally:
            self._give_back()
            self._worker.recorder.add(self.trace.record(self._worker.clock.monotonic()))
            self._worker.visits.ended(self.trace.id)
        return isinstance(error, (Exception, asyncio.CancelledError))

    def _give_back(self) -> None:
        self._leave_replica()
        if self.claim is not None and self.claim.has_slot:
            self._worker.admission.leave(self.claim)
        if self.charge is not None:
            usage = self.trace.known_usage
            if usage is not None:
                self.charge.settle(usage.prompt_tokens, usage.completion_tokens)
            elif self.trace.exchange is None or self.trace.exchange.sent_at is None:
                self.charge.settle(0, 0)  # no engine has seen it
            elif self.trace.watch is not None:
                self.charge.settle(None, self.trace.watch.token_chunks)
            else:
                self.charge.settle(None, None)

    def _explain(self, error: BaseException) -> None:
        """Tell the client what went wrong, as far as that is still possible."""
        trace, client = self.trace, self.client
        if client.left:
            trace.cancelled = True
            trace.outcome = Outcome.CANCELLED
            return
        if isinstance(error, asyncio.CancelledError):
            error = NoCapacityError(
                "The gateway is shutting down and could not wait for this answer. Send the request again.",
                retry_after=Seconds(1.0),
            )
        elif not isinstance(error, RequestError):
            _log.error("request %s hit a defect of the gateway", trace.id, exc_info=error)
            error = RequestError(f"The gateway failed; this is a defect. Please report request {trace.id}.")
        if trace.target is not None and trace.exchange is not None and trace.exchange.status:
            self._worker.sightings.failed(trace.target.replica.name, error, sent=True)  # in the middle of its answer
        trace.outcome = _outcome(error, started=self._started)
        if not self._started:
            self._refuse(error)
        elif trace.watch is not None:
            client.close_after_answer()
            client.finish(trace.watch.error_event(error))
        else:
            client.cut()

    def _refuse(self, error: RequestError) -> None:
        headers = [(b"content-type", b"application/json"), *error.headers]
        if error.retry_after is not None:
            headers.append((b"retry-after", b"%d" % max(1, ceil(error.retry_after))))
        self.answer(error.status, header_lines(headers), self.client.endpoint.grammar.error_body(error))


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
