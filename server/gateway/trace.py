"""What is known of one request so far; becomes its record."""

from __future__ import annotations

from server.gateway.openai.stream import StreamWatch
from server.gateway.openai.usage import Usage
from server.gateway.routing.router import Target
from server.gateway.upstream.upstream import Exchange
from server.units import Seconds
from server.wire import NO_ADAPTER, Outcome, RequestRecord

__all__ = ["LEFT_EARLY", "Trace"]

LEFT_EARLY = 499
"""The status in the record of a client that left before one was sent."""


class Trace:
    """Filled in by the path, stage by stage; what a request never reached stays None."""

    __slots__ = (
        "cancelled",
        "endpoint",
        "exchange",
        "id",
        "outcome",
        "queued",
        "received_at",
        "requested_model",
        "status",
        "streamed",
        "target",
        "tenant",
        "usage",
        "watch",
    )

    def __init__(self, *, request_id: str, endpoint: str, received_at: Seconds) -> None:
        self.id = request_id
        self.endpoint = endpoint
        self.received_at = received_at
        self.tenant = "unknown"
        self.requested_model: str | None = None
        self.queued = Seconds(0.0)
        self.target: Target | None = None
        self.exchange: Exchange | None = None
        self.watch: StreamWatch | None = None
        self.usage: Usage | None = None
        self.streamed = False
        self.status: int | None = None
        self.outcome = Outcome.OK
        self.cancelled = False

    def record(self, ended_at: Seconds) -> RequestRecord:
        """The request has ended."""
        one = self.target.candidate if self.target else None
        exchange, watch = self.exchange, self.watch
        usage = watch.usage if watch is not None else self.usage
        return RequestRecord(
            id=self.id,
            endpoint=self.endpoint,
            tenant=self.tenant,
            requested_model=self.requested_model,
            model=one.model if one else None,
            variant=one.variant if one else None,
            precision=one.precision if one else None,
            adapter=one.adapter if one else NO_ADAPTER,
            engine=one.replica if one else None,
            outcome=self.outcome,
            status=LEFT_EARLY if self.status is None else self.status,
            streamed=self.streamed,
            cancelled_when=self._phase() if self.cancelled else None,
            retries=exchange.retries if exchange else 0,
            received_at=self.received_at,
            queue_s=self.queued,
            sent_at=exchange.sent_at if exchange else None,
            first_byte_at=exchange.first_byte_at if exchange else None,
            first_token_at=watch.first_token_at if watch else None,
            last_token_at=watch.last_token_at if watch else None,
            upstream_done_at=exchange.done_at if exchange else None,
            ended_at=ended_at,
            prompt_tokens=usage.prompt_tokens if usage else None,
            cached_tokens=usage.cached_tokens if usage else None,
            output_tokens=usage.completion_tokens if usage else None,
            token_chunks=watch.token_chunks if watch else 0,
        )

    def _phase(self) -> str:
        """How far the request was when its client left."""
        if self.exchange is None:
            return "queued"
        if self.watch is None or self.watch.first_token_at is None:
            return "before_first_token"
        return "streaming"
