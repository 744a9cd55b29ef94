"""What becomes of a trace: every value in its own place of the record."""

from __future__ import annotations

from array import array

import msgspec
import pytest

from server.gateway.endpoints import ENDPOINTS
from server.gateway.grammars import Usage
from server.gateway.routing.plan import Target
from server.gateway.trace import Trace
from server.gateway.upstream.upstream import Exchange
from server.units import Seconds
from server.wire import Outcome, RequestRecord
from tests.gateway.house import candidate, replica

CHAT = ENDPOINTS[0].grammar


class Answered:
    """What a trace reads of an exchange."""

    sent_at, first_byte_at, done_at, resent = Seconds(12.0), Seconds(13.0), Seconds(16.0), 2


def traced(exchange: Exchange) -> Trace:
    trace = Trace(request_id="r-1", endpoint="chat", received_at=Seconds(10.0))
    trace.tenant, trace.requested_model, trace.queued = "acme", "demo", Seconds(0.5)
    trace.target = Target(candidate=candidate(adapter="json"), replica=replica(1))
    trace.exchange, trace.retries, trace.status, trace.streamed = exchange, 1, 200, True
    return trace


def test_record_has_every_value_under_its_name() -> None:
    trace = traced(Answered())  # type: ignore[arg-type]  # only its facts are read
    watch = trace.watch = CHAT.watch(times=array("d"), strip_usage=False, model=None)
    watch.first_token_at, watch.last_token_at, watch.token_chunks = Seconds(14.0), Seconds(15.0), 7
    watch.usage = Usage(20, 8, 4)
    assert msgspec.structs.asdict(trace.record(Seconds(17.0))) == {
        "id": "r-1",
        "endpoint": "chat",
        "tenant": "acme",
        "requested_model": "demo",
        "model": "demo",
        "variant": "bf16",
        "precision": "bf16",
        "adapter": "json",
        "engine": "engine-a",
        "outcome": Outcome.OK,
        "status": 200,
        "streamed": True,
        "cancelled_when": None,
        "retries": 3,
        "received_at": 10.0,
        "queue_s": 0.5,
        "sent_at": 12.0,
        "first_byte_at": 13.0,
        "first_token_at": 14.0,
        "last_token_at": 15.0,
        "upstream_done_at": 16.0,
        "ended_at": 17.0,
        "prompt_tokens": 20,
        "cached_tokens": 4,
        "output_tokens": 8,
        "token_chunks": 7,
        "tokens_spared": None,
    }


def test_request_that_was_never_routed_says_so() -> None:
    record: RequestRecord = Trace(request_id="r", endpoint="chat", received_at=Seconds(1.0)).record(Seconds(2.0))
    assert (record.model, record.engine, record.adapter, record.status) == (None, None, "none", 499)
    assert (record.sent_at, record.prompt_tokens, record.token_chunks) == (None, None, 0)


@pytest.mark.parametrize(
    ("body", "streamed", "tokens", "spared"),
    [
        (b'"max_tokens":64', True, 24, 40),
        (b'"max_completion_tokens":10,"max_tokens":64', True, 3, 7),
        (b'"max_output_tokens":5', True, 9, 0),
        (b'"temperature":0', True, 3, None),
        (b'"max_tokens":"many"', True, 3, None),
        (b'"max_tokens":64', False, 0, None),
    ],
)
def test_cancelled_request_tells_the_tokens_that_need_not_be_written(
    body: bytes, streamed: bool, tokens: int, spared: int | None
) -> None:
    trace = traced(Answered())  # type: ignore[arg-type]
    trace.call = CHAT.parse(b'{"model":"demo","messages":[],' + body + b"}")
    trace.cancelled, trace.streamed = True, streamed
    if streamed:
        trace.watch = CHAT.watch(times=array("d"), strip_usage=False, model=None)
        trace.watch.token_chunks = tokens
    assert trace.record(Seconds(17.0)).tokens_spared == spared
