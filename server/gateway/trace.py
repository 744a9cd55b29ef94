"""What is known of one request so far; becomes its record."""

from __future__ import annotations

from typing import Final, NamedTuple

from server.gateway.grammars import Call, StreamWatch, Usage
from server.gateway.routing.plan import Target
from server.gateway.upstream.upstream import Exchange
from server.units import Seconds
from server.wire import NO_ADAPTER, Outcome, RequestRecord

__all__ = ["LEFT_EARLY", "Trace"]

LEFT_EARLY = 499
"""The status in the record of a client that left before one was sent."""


class _Nowhere(NamedTuple):
    """In the place of a candidate, for a request that was never routed."""

    model: None = None
    variant: None = None
    precision: None = None
    adapter: str = NO_ADAPTER
    replica: None = None


_NOWHERE: Final = _Nowhere()


class Trace:
    """Filled in by the path, stage by stage; what a request never reached stays None."""

    tenant = "unknown"
    requested_model: str | None = None
    call: Call | None = None
    queued: Seconds
    target: Target | None = None
    exchange: Exchange | None = None
    watch: StreamWatch | None = None
    usage: Usage | None = None
    retries = 0
    """Attempts at other replicas before this one."""
    streamed = False
    adds_usage = False
    """The gateway asks for the stream's usage, which the client did not."""
    includes_energy = False
    """The client wants joules beside the usage, and so the usage too."""
    status: int | None = None
    outcome: Outcome
    cancelled = False

    def __init__(self, *, request_id: str, endpoint: str, received_at: Seconds) -> None:
        self.id = request_id
        self.endpoint = endpoint
        self.received_at = received_at
        self.queued = Seconds(0.0)
        self.outcome = Outcome.OK

    @property
    def known_usage(self) -> Usage | None:
        """What the engine has said of tokens."""
        return self.usage if self.watch is None else self.watch.usage

    def record(self, ended_at: Seconds) -> RequestRecord:
        """The request has ended."""
        target, exchange, watch, usage = self.target, self.exchange, self.watch, self.known_usage
        one = _NOWHERE if target is None else target.candidate
        return RequestRecord(  # by position: names would take four times as long; the order is the declaration's
            self.id,
            self.endpoint,
            self.tenant,
            self.requested_model,
            one.model,
            one.variant,
            one.precision,
            one.adapter,
            one.replica,
            self.outcome,
            LEFT_EARLY if self.status is None else self.status,
            self.streamed,
            self._phase() if self.cancelled else None,
            self.retries if exchange is None else self.retries + exchange.resent,
            self.received_at,
            self.queued,
            None if exchange is None else exchange.sent_at,
            None if exchange is None else exchange.first_byte_at,
            None if watch is None else watch.first_token_at,
            None if watch is None else watch.last_token_at,
            None if exchange is None else exchange.done_at,
            ended_at,
            None if usage is None else usage.prompt_tokens,
            None if usage is None else usage.cached_tokens,
            None if usage is None else usage.completion_tokens,
            0 if watch is None else watch.token_chunks,
            self._spared() if self.cancelled else None,
        )

    def _spared(self) -> int | None:
        """Tokens that need not be written because the client left."""
        most = self.call.most_tokens if self.call is not None else None
        sent = self.exchange is not None and self.exchange.sent_at is not None
        if most is None or (sent and not self.streamed):
            return None
        return max(0, most - (self.watch.token_chunks if self.watch is not None else 0))

    def _phase(self) -> str:
        """How far the request was when its client left."""
        if self.exchange is None:
            return "queued"
        if self.watch is None or self.watch.first_token_at is None:
            return "before_first_token"
        return "streaming"
