"""The engine's answer on its way to the client: streamed, whole, or an error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from server.errors import UpstreamFailedError
from server.gateway.passage import Passage
from server.gateway.token_log import TokenLog
from server.gateway.trace import Trace
from server.gateway.upstream.upstream import Exchange
from server.gateway.visit import Visit
from server.gateway.worker import Worker
from server.units import Seconds
from server.wire import Outcome

__all__ = ["forward"]

MAX_WHOLE_BYTES: Final = 2**20
"""Longer whole answers pass through unread: their usage is unknown and their `model` is the engine's."""

_PASSED_ON: Final = (b"content-type", b"cache-control", b"content-language", b"retry-after")
_NO_HOPS: Final = frozenset({b"", b"close", b"keep-alive"})


async def forward(answer: Exchange, visit: Visit, worker: Worker) -> None:
    """Send the client what it may see of the answer."""
    fields = answer.headers
    kind = fields.get(b"content-type", b"")
    if answer.status >= 300:
        await _error(answer, visit)
    elif kind.startswith(b"text/event-stream"):
        await _stream(answer, _safe(fields), visit, worker)
    else:
        await _whole(answer, _safe(fields), visit, worker)


async def _stream(answer: Exchange, lines: bytes, visit: Visit, worker: Worker) -> None:
    trace, client = visit.trace, visit.client
    log = _token_log(trace)
    watch = trace.watch = client.endpoint.grammar.watch(
        times=log.times,
        strip_usage=trace.adds_usage and not trace.includes_energy,
        model=_other_model(trace),
        note=worker.prices.notes(log.candidate.replica) if trace.includes_energy else None,
    )
    passage = Passage(watch, log, client, worker.clock)
    worker.recorder.follow(log)
    try:
        visit.start(answer.status, lines)
        client.flows_from(answer)
        await answer.pipe(passage.take, passage)
        client.finish(watch.finish(answer.done_at or log.sent_at))
    finally:
        passage.close()
        worker.recorder.unfollow(log)
        watch.token_chunks, watch.last_token_at = log.count, log.last_at  # also of what passed unread
    if watch.failed:
        trace.outcome = Outcome.UPSTREAM_ERROR if watch.first_token_at is None else Outcome.TRUNCATED


async def _whole(answer: Exchange, lines: bytes, visit: Visit, worker: Worker) -> None:
    body = answer.whole_now()
    if body is None:
        body, complete = await answer.whole(MAX_WHOLE_BYTES)
        if not complete:
            await _pass(answer, lines, visit)
            return
    grammar, trace = visit.client.endpoint.grammar, visit.trace
    known = grammar.read_answer(body)
    if known is not None:
        usage = trace.usage = known.usage
        model = _other_model(trace)
        if model is not None:
            body = grammar.rewrite_model(body, known, model)
        if usage is not None and trace.target is not None:
            engine = trace.target.replica.name
            lines += worker.prices.header_line(engine, usage)
            if trace.includes_energy:
                body = grammar.note_usage(body, worker.prices.note(engine, usage))
    visit.answer(answer.status, lines, body)


def _other_model(trace: Trace) -> bytes | None:
    """The JSON string for the answer's `model`; None where the engine's own is right."""
    assert trace.target is not None
    return msgspec.json.encode(trace.target.candidate.answer_model) if trace.target.replica.rewrite_model else None


async def _pass(answer: Exchange, lines: bytes, visit: Visit) -> None:
    """A long answer, unread; its length stays known if the engine told it."""
    client = visit.client
    visit.start(answer.status, lines, length=answer.headers.get(b"content-length"))
    client.flows_from(answer)
    await answer.pipe(lambda _at, data: client.more(data))
    client.finish()


async def _error(answer: Exchange, visit: Visit) -> None:
    status, trace = answer.status, visit.trace
    engine = trace.target.replica.name if trace.target else ""
    if status >= 600:
        raise UpstreamFailedError(f"The engine {engine} answered with the status {status}, which means nothing.")
    if status < 400:
        raise UpstreamFailedError(f"The engine {engine} answered with a redirect ({status}); check its `url`.")
    if status in {401, 403}:
        raise UpstreamFailedError(f"The engine {engine} refused the gateway's key ({status}); check its `api_key_env`.")
    body, _ = await answer.whole(MAX_WHOLE_BYTES)
    if status == 429:
        trace.outcome = Outcome.REJECTED
    else:
        trace.outcome = Outcome.CLIENT_ERROR if status < 500 else Outcome.UPSTREAM_ERROR
    lines = _safe({**answer.headers, b"content-type": b"application/json"})
    visit.answer(status, lines, visit.client.endpoint.grammar.engine_error(body, status, engine))


def _safe(fields: Mapping[bytes, bytes]) -> bytes:
    """The header lines that a client may see: of few names, and of none that `Connection` calls hop-by-hop."""
    kept = [name for name in _PASSED_ON if name in fields]
    hops = fields.get(b"connection", b"").lower()
    if hops not in _NO_HOPS:
        named = {name.strip() for name in hops.split(b",")}
        kept = [name for name in kept if name not in named]
    return b"".join([b"%b: %b\r\n" % (name, fields[name]) for name in kept])


def _token_log(trace: Trace) -> TokenLog:
    assert trace.target is not None
    assert trace.exchange is not None
    return TokenLog(
        id=trace.id,
        tenant=trace.tenant,
        candidate=trace.target.candidate,
        sent_at=trace.exchange.sent_at or Seconds(trace.received_at),
    )
