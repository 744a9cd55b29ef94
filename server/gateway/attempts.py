"""Asks one replica after the other until one answers, or until it is better to pass on what the last one said.

Another replica is tried only while the client has got nothing, only for what `retry.py` calls worth it, and only while
the budget lasts. With nowhere else to go there is one attempt, and the engine's own refusal is the answer.
"""

from __future__ import annotations

from typing import Final

from server.errors import ContendedError, NoCapacityError, RequestError
from server.gateway.grammars import Call
from server.gateway.retry import RetryReason, retry_after_of, retryable
from server.gateway.routing.plan import Plan, Target
from server.gateway.routing.policy import Ask
from server.gateway.upstream.upstream import Exchange
from server.gateway.visit import Visit
from server.gateway.worker import Worker

__all__ = ["first_answer"]

_RETRYABLE_FROM: Final = 429
"""Lower statuses are answers."""
_BROKEN_FROM: Final = 500


async def first_answer(worker: Worker, visit: Visit, call: Call, plan: Plan, body: bytes) -> Exchange:
    """An exchange whose answer has begun; the visit holds it.

    Raises what `Router.choose` and `Exchange.begin` raise for the last replica that was asked.
    """
    search = _Search(worker, plan, Ask(body))
    worker.retries.request(visit.trace.received_at)
    target = worker.router.choose(plan, search.ask)
    while True:
        exchange = _exchange(worker, visit, call, target, body)
        visit.asks(target, exchange)
        try:
            await exchange.begin()
        except RequestError as error:
            another = search.after_failure(target, exchange, error)
            if another is None:
                raise
        else:
            if exchange.status < _RETRYABLE_FROM:
                worker.sightings.answered(target.replica.name)
                return exchange
            another = search.after_refusal(target, exchange)
            if another is None:
                return exchange
        target = another
        visit.trace.retries += 1


class _Search:
    """Whom to ask next, and what is told about those who were asked."""

    __slots__ = ("_lost", "_plan", "_tried", "_worker", "ask")

    def __init__(self, worker: Worker, plan: Plan, ask: Ask) -> None:
        self._worker = worker
        self._plan = plan
        self._tried: list[str] = []
        self._lost = False
        """An engine died with the request: a second one may, but no third."""
        self.ask = ask

    def after_failure(self, target: Target, exchange: Exchange, error: RequestError) -> Target | None:
        """When no answer began; None: there is nobody else to ask."""
        sent = exchange.sent_at is not None
        self._worker.sightings.failed(target.replica.name, error, sent=sent)
        return self._elsewhere(target, retryable(error, sent=sent))

    def after_refusal(self, target: Target, exchange: Exchange) -> Target | None:
        """When the answer is an error; None: it stands."""
        sightings, reason = self._worker.sightings, retryable(exchange.status)
        if reason is None and exchange.status >= _BROKEN_FROM:
            sightings.erred(target.replica.name)
        elif reason is None:
            sightings.answered(target.replica.name)
        else:
            wait = retry_after_of(exchange.headers, self._worker.clock)
            sightings.refused(target.replica.name, exchange.status, wait)
        return self._elsewhere(target, reason)

    def _elsewhere(self, target: Target, reason: RetryReason | None) -> Target | None:
        if reason is None or (reason == "connection_lost" and self._lost):
            return None
        self._lost |= reason == "connection_lost"
        self._tried.append(target.replica.name)
        try:
            another = self._worker.router.choose(self._plan, self.ask, self._tried)
        except (NoCapacityError, ContendedError):
            return None
        return another if self._worker.retries.allow(reason) else None


def _exchange(worker: Worker, visit: Visit, call: Call, target: Target, body: bytes) -> Exchange:
    endpoint, trace = visit.client.endpoint, visit.trace
    out = endpoint.grammar.upstream_body(
        body, call, upstream_model=target.candidate.upstream_model, add_usage=trace.adds_usage
    )
    return worker.upstream.exchange(target.replica, endpoint.paths[0], out, whole=not trace.streamed)
