"""The engine's answer on its way to the client: streamed, whole, or an error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from server.errors import UpstreamFailedError
from server.gateway.openai.errors import openai_error
from server.gateway.openai.splice import replace_member
from server.gateway.openai.stream import StreamWatch
from server.gateway.openai.usage import read_answer
from server.gateway.records import Recorder, TokenLog
from server.gateway.trace import Trace
from server.gateway.upstream.upstream import Exchange
from server.gateway.visit import Visit
from server.units import Seconds
from server.wire import Outcome

__all__ = ["Wishes", "forward"]

MAX_WHOLE_BYTES: Final = 2**20
"""Longer whole answers pass through unread: their usage is unknown and their `model` is the engine's."""

_PASSED_ON: Final = frozenset({b"content-type", b"cache-control", b"content-language", b"retry-after"})
_JSON: Final = (b"content-type", b"application/json")

Header = tuple[bytes, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """How the answer must differ from the engine's."""

    strip_usage: bool
    """The client did not ask for the usage frame that the gateway asked for."""
    model: bytes | None
    """The JSON string for the answer's `model`; None where the engine's own is right."""


async def forward(answer: Exchange, visit: Visit, wishes: Wishes, recorder: Recorder) -> None:
    """Send the client what it may see of the answer."""
    headers = _safe(answer.headers)
    if answer.status >= 300:
        await _error(answer, headers, visit)
    elif _value(headers, b"content-type").startswith(b"text/event-stream"):
        await _stream(answer, headers, visit, wishes, recorder)
    else:
        await _whole(answer, headers, visit, wishes)


async def _stream(answer: Exchange, headers: list[Header], visit: Visit, wishes: Wishes, recorder: Recorder) -> None:
    trace = visit.trace
    log = _token_log(trace)
    watch = trace.watch = StreamWatch(times=log.times, strip_usage=wishes.strip_usage, model=wishes.model)
    recorder.follow(log)
    try:
        await visit.start(answer.status, headers, sse=True)
        while (piece := await answer.read()) is not None:
            at, data = piece
            if out := watch.feed(data, at):
                await visit.more(out)
        rest = watch.finish(answer.done_at or log.sent_at)
        await visit.finish(rest)
    finally:
        recorder.unfollow(log)
    if watch.failed:
        trace.outcome = Outcome.UPSTREAM_ERROR if watch.first_token_at is None else Outcome.TRUNCATED


async def _whole(answer: Exchange, headers: list[Header], visit: Visit, wishes: Wishes) -> None:
    body, complete = await _read_up_to(answer, MAX_WHOLE_BYTES)
    if not complete:
        await _pass(answer, body, headers, visit)
        return
    known = read_answer(body)
    if known is not None:
        visit.trace.usage = known.usage
        if wishes.model is not None:
            body = replace_member(body, "model", wishes.model)
    visit.answer(answer.status, headers, body)


async def _pass(answer: Exchange, begun: bytes, headers: list[Header], visit: Visit) -> None:
    """A long answer: its length stays known if the engine told it."""
    length = _value(answer.headers, b"content-length")
    if length:
        headers.append((b"content-length", length))
    await visit.start(answer.status, headers)
    await visit.more(begun)
    while (piece := await answer.read()) is not None:
        await visit.more(piece[1])
    await visit.finish()


async def _error(answer: Exchange, headers: list[Header], visit: Visit) -> None:
    status, trace = answer.status, visit.trace
    engine = trace.target.replica.name if trace.target else ""
    if status >= 600:
        raise UpstreamFailedError(f"The engine {engine} answered with the status {status}, which means nothing.")
    if status < 400:
        raise UpstreamFailedError(f"The engine {engine} answered with a redirect ({status}); check its `url`.")
    if status in {401, 403}:
        raise UpstreamFailedError(f"The engine {engine} refused the gateway's key ({status}); check its `api_key_env`.")
    body, _ = await _read_up_to(answer, MAX_WHOLE_BYTES)
    if status == 429:
        trace.outcome = Outcome.REJECTED
    else:
        trace.outcome = Outcome.CLIENT_ERROR if status < 500 else Outcome.UPSTREAM_ERROR
    kept = [header for header in headers if header[0] != b"content-type"]
    visit.answer(status, [_JSON, *kept], openai_error(body, status, engine))


async def _read_up_to(answer: Exchange, limit: int) -> tuple[bytes, bool]:
    """The body, and whether that is all of it; stops once it is longer than `limit`."""
    pieces: list[bytes] = []
    size = 0
    while (piece := await answer.read()) is not None:
        pieces.append(piece[1])
        size += len(piece[1])
        if size > limit:
            return b"".join(pieces), False
    return pieces[0] if len(pieces) == 1 else b"".join(pieces), True


def _safe(headers: list[Header]) -> list[Header]:
    """What a client may see: few names, and none that the engine calls hop-by-hop in `Connection`."""
    kept = [header for header in headers if header[0] in _PASSED_ON]
    named = _value(headers, b"connection").lower()
    if named and named not in {b"close", b"keep-alive"}:
        hops = {name.strip() for name in named.split(b",")}
        kept = [header for header in kept if header[0] not in hops]
    return kept


def _value(headers: list[Header], name: bytes) -> bytes:
    for one, value in headers:
        if one == name:
            return value
    return b""


def _token_log(trace: Trace) -> TokenLog:
    assert trace.target is not None
    assert trace.exchange is not None
    return TokenLog(
        id=trace.id,
        tenant=trace.tenant,
        candidate=trace.target.candidate,
        sent_at=trace.exchange.sent_at or Seconds(trace.received_at),
    )
