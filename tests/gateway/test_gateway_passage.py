"""Whatever passes unread is what the watch would have passed, however an engine frames it and the network cuts it."""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, cast

import httptools
from hypothesis import event as note_event
from hypothesis import given, settings
from hypothesis import strategies as st

from server.gateway.client import Client
from server.gateway.drive import Drive
from server.gateway.endpoints import ENDPOINTS
from server.gateway.grammars import StreamWatch, Usage
from server.gateway.passage import Passage
from server.gateway.token_log import TokenLog
from server.gateway.upstream.connection import Connection
from server.gateway.upstream.http1 import Http1Exchange, Http1Upstream, UpstreamLimits
from server.gateway.upstream.pool import Pool
from server.units import Seconds
from tests.fakes.clock import FakeClock
from tests.fakes.scripted_engine import DONE, head, messages_stream, responses_stream, role, sse, token, usage
from tests.gateway.house import candidate, replica

HEAD = head(200, (b"content-type", b"text/event-stream"), (b"transfer-encoding", b"chunked"))

_words = st.sampled_from(
    ["a", " b", "word", "", 'say "hi"', "\\", "a\\", '\\"', "\n\n", "\r\n", "ä€😀", "}", "data: [DONE]", "x" * 200]
) | st.text(max_size=20)
_tokens = st.builds(token, _words)
_odd_events = st.sampled_from(
    [
        role(),
        token("", finish="stop"),
        token("end", finish="length"),
        usage(9, 3),
        token("a", model="other"),
        token("a").replace(b'"c-1"', b'"c-2"'),
        token("a").replace(b"\n\n", b"\r\n\r\n"),
        token("a") + token("b")[:20],
        sse({"error": {"message": "no"}}),
        sse({"choices": [{"index": 0, "delta": {"content": 'x"y'}, "finish_reason": None}], "usage": None}),
        b": comment\n\n",
        b"\n",
        b"\n\n",
        b"\r\n",
        b"data: not json\n\n",
        b"event: x\ndata: {}\n\n",
        b'data: {"choices":[{"delta":{"content":"\n\n"}}]}\n\n',
        DONE,
    ]
)
_chats = st.lists(st.one_of(_tokens, _tokens, _tokens, _odd_events), max_size=14).map(lambda events: [*events, DONE])
_others = st.lists(_words, max_size=8).flatmap(
    lambda words: st.sampled_from([responses_stream(*words), messages_stream(*words)])
)
_streams = st.tuples(st.just("chat"), _chats) | _others.map(
    lambda events: ("responses" if b"response." in events[0] else "messages", events)
)


class Recording:
    """A transport that hands what is read to its protocol, as the event loop does."""

    def __init__(self) -> None:
        self.protocol: asyncio.Protocol
        self.written = b""

    def set_protocol(self, protocol: asyncio.Protocol) -> None:
        self.protocol = protocol

    def write(self, data: bytes) -> None:
        self.written += data

    def abort(self) -> None:
        raise AssertionError("the parser lost its place")

    def set_write_buffer_limits(self, **_limits: int) -> None:
        """There is no buffer."""

    def get_extra_info(self, _name: str) -> None:
        """There is no socket."""

    def is_closing(self) -> bool:
        return False


class OneConnection(Pool):
    """A pool whose one connection is open."""

    def open(self, transport: Recording) -> Connection:
        connection = Connection(self._clock)
        connection.connection_made(cast("asyncio.Transport", transport))
        transport.protocol = connection
        connection.reusable = True
        connection.idle_since = self._clock.monotonic()
        self._idle.append(connection)
        return connection


class Heard:
    """The client's connection: what was written to it, with its framing taken off by a parser."""

    def __init__(self) -> None:
        self.transport = self
        self.body = b""
        self.ended = False
        self._parser = httptools.HttpResponseParser(self)
        self._parser.feed_data(HEAD)

    def write(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_message_complete(self) -> None:
        self.ended = True

    def flows_from(self, _exchange: object) -> None:
        """Nobody is slow here."""

    def answered(self, _client: object) -> None:
        """That was all."""


@dataclass
class Passed:
    """What came of one stream."""

    body: bytes
    times: list[float]
    tokens: int
    first_at: Seconds | None
    last_at: Seconds | None
    usage: Any
    failed: bool


def note_of(usage: Usage) -> bytes:
    return b'{"output":%d}' % (usage.completion_tokens or 0)


def log_of(times: array[float]) -> TokenLog:
    return TokenLog(id="r", tenant="t", candidate=candidate(), sent_at=Seconds(0.0), times=times)


def result(watch: StreamWatch, body: bytes, times: Iterable[float]) -> Passed:
    return Passed(
        body=body,
        times=list(times),
        tokens=watch.token_chunks,
        first_at=watch.first_token_at,
        last_at=watch.last_token_at,
        usage=watch.usage,
        failed=watch.failed,
    )


def by_the_watch(watch: StreamWatch, times: array[float], bodies: list[bytes]) -> Passed:
    """What the watch alone gives; one read a second."""
    out = [watch.feed(body, Seconds(float(at))) for at, body in enumerate(bodies, start=1) if body]
    out.append(watch.finish(Seconds(float(len(bodies)))))
    return result(watch, b"".join(out), times)


def by_the_passage(watch: StreamWatch, times: array[float], endpoint: Any, reads: list[bytes]) -> tuple[Passed, int]:
    """What a client gets of these reads; and how many of them passed unread."""
    clock, transport, heard, unread = FakeClock(0.0), Recording(), Heard(), 0
    limits = UpstreamLimits(
        connections=1, connect_timeout=Seconds(9), first_byte_timeout=Seconds(9), whole_answer_timeout=Seconds(9),
        idle_timeout=Seconds(9),
    )  # fmt: skip
    pool = OneConnection(replica(1), bound=1, timeout=Seconds(9), tls=None, clock=clock)
    connection = pool.open(transport)
    client = Client(
        cast("Any", heard), endpoint, method=b"POST", fields={}, received_at=Seconds(0), chunked=True, keep_alive=True
    )
    upstream = Http1Upstream(limits, clock=clock)
    upstream.started = lambda _exchange: None  # type: ignore[method-assign]  # no time runs here
    exchange = Http1Exchange(upstream, pool, "/v1/x", b"{}", whole=False)
    log = log_of(times)

    async def serve() -> None:
        await exchange.begin()
        passage = Passage(watch, log, client, clock)
        await exchange.pipe(passage.take, passage)
        client.finish(watch.finish(exchange.done_at or log.sent_at))
        watch.token_chunks, watch.last_token_at = log.count, log.last_at
        exchange.close()

    Drive(serve()).start()
    for read in reads:
        clock.advance(1)
        before = connection._heard_at  # whether the connection saw this read
        transport.protocol.data_received(read)
        unread += connection._heard_at == before
    assert exchange.done_at is not None, "the answer's end was not seen"
    assert heard.ended
    assert connection.reusable
    assert transport.protocol is connection
    assert pool.take_now() is connection, "the connection and its seat were not given back"
    return result(watch, heard.body, log.times), unread


@st.composite
def _framings(draw: st.DrawFn, events: list[bytes]) -> list[tuple[bytes, bool]]:
    """The wire's segments, and whether each is body."""
    body, places = b"".join(events), set()
    at = 0
    for event in events:  # most chunks are one event, as vLLM writes them
        at += len(event)
        if draw(st.integers(0, 5)):
            places.add(at)
        elif draw(st.booleans()):
            places.add(draw(st.integers(1, max(1, len(body) - 1))))
    edges = sorted({0, len(body), *(place for place in places if place < len(body))})
    segments = [(HEAD, False)]
    for start, end in pairwise(edges):
        size = draw(st.sampled_from([b"%x"] * 8 + [b"%X", b"0%x", b"%x;name=value", b"00%X;a"])) % (end - start)
        segments += [(size + b"\r\n", False), (body[start:end], True), (b"\r\n", False)]
    segments.append((draw(st.sampled_from([b"0\r\n\r\n", b"0;x=y\r\n\r\n", b"0\r\ntrailer: 1\r\n\r\n"])), False))
    return segments


@st.composite
def _cuts(draw: st.DrawFn, segments: list[tuple[bytes, bool]]) -> tuple[list[bytes], list[bytes]]:
    """The reads of a wire, and what each holds of the body: mostly whole chunks, else anything."""
    ends, at = [], 0
    wire = b"".join(data for data, _ in segments)
    for number, (data, is_body) in enumerate(segments):
        at += len(data)
        whole = not is_body and (number == 0 or segments[number - 1][1])
        if whole and draw(st.integers(0, 6)):
            ends.append(at)
    ends += draw(st.lists(st.integers(1, len(wire) - 1), max_size=draw(st.sampled_from([0, 0, 3, 12]))))
    edges = sorted({0, len(wire), *(end for end in ends if end < len(wire))})
    owner = b"".join((b"1" if is_body else b"0") * len(data) for data, is_body in segments)
    reads = [wire[start:end] for start, end in pairwise(edges)]
    bodies = [
        bytes(byte for byte, mine in zip(wire[start:end], owner[start:end], strict=True) if mine == ord("1"))
        for start, end in pairwise(edges)
    ]
    return reads, bodies


@given(st.data(), _streams, st.booleans(), st.booleans(), st.booleans())
@settings(max_examples=300, deadline=None)
def test_client_gets_what_the_watch_alone_would_give_whatever_passes_unread(
    data: st.DataObject, stream: tuple[str, list[bytes]], strip: bool, rewrite: bool, noted: bool
) -> None:
    name, events = stream
    endpoint = next(one for one in ENDPOINTS if one.name == name)
    reads, bodies = data.draw(_cuts(data.draw(_framings(events))))
    model = b'"demo"' if rewrite else None
    ways = []
    for _ in range(2):
        times = array("d")
        note = note_of if noted else None
        ways.append((endpoint.grammar.watch(times=times, strip_usage=strip, model=model, note=note), times))
    expected = by_the_watch(*ways[0], bodies)
    passed, unread = by_the_passage(*ways[1], endpoint, reads)
    note_event("some passed unread" if unread else "all were read")
    assert passed == expected


def test_most_of_a_usual_stream_passes_unread() -> None:
    """So that the law above is about something."""
    events = [role(), *(token(f"word{number}") for number in range(50)), token("", finish="stop"), usage(9, 50), DONE]
    reads = [HEAD, *(b"%x\r\n%b\r\n" % (len(event), event) for event in events), b"0\r\n\r\n"]
    for model, note in ((None, None), (b'"demo"', None), (None, note_of)):
        times = array("d")
        endpoint = next(one for one in ENDPOINTS if one.name == "chat")
        watch = endpoint.grammar.watch(times=times, strip_usage=False, model=model, note=note)
        passed, unread = by_the_passage(watch, times, endpoint, reads)
        assert (passed.tokens, len(passed.times)) == (50, 50)
        assert unread >= 48


def test_engine_that_ends_an_event_in_another_way_gets_nothing_out_of_order() -> None:
    a, b = token("a"), token("b")
    events = [a, a, a.replace(b"\n\n", b"\r\n\r\n"), a + role(), b, DONE]
    reads = [HEAD, *(b"%x\r\n%b\r\n" % (len(event), event) for event in events), b"0\r\n\r\n"]
    times = array("d")
    endpoint = next(one for one in ENDPOINTS if one.name == "chat")
    watch = endpoint.grammar.watch(times=times, strip_usage=False, model=None)
    assert by_the_passage(watch, times, endpoint, reads)[0].body == b"".join(events)
