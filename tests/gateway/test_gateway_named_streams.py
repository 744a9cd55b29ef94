"""Following streams of the Responses and the Messages API, however the network cuts them."""

from __future__ import annotations

import json
from array import array
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.errors import UpstreamFailedError
from server.gateway.grammars import GRAMMARS, StreamWatch, Usage
from server.units import Seconds
from tests.fakes.scripted_engine import messages_stream, named, responses_stream, sse

STREAMS = {"responses": responses_stream, "messages": messages_stream}
PING = b'event: ping\ndata: {"type":"ping"}\n\n'
TRICKY = '"usage":{"x":1}}\n\nevent: error\ndata: {"type":"error"}\n\n'

_kinds = st.sampled_from(sorted(STREAMS))
_words = st.lists(st.sampled_from(["a", " b", "ä€😀", "}", "\\", 'say "hi"', TRICKY]), min_size=1, max_size=8)
_places = st.lists(st.integers(0, 5000), max_size=12)


def open_watch(kind: str, model: bytes | None = None) -> tuple[StreamWatch, array[float]]:
    times = array("d")
    return GRAMMARS[kind].watch(times=times, strip_usage=False, model=model), times


def fed(kind: str, pieces: list[bytes], model: bytes | None = None) -> tuple[bytes, StreamWatch, list[float]]:
    """Feed the pieces, one a second from 1 on."""
    one, times = open_watch(kind, model)
    out = b"".join(one.feed(piece, Seconds(float(at))) for at, piece in enumerate(pieces, start=1))
    return out + one.finish(Seconds(float(len(pieces)))), one, list(times)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted({place % (len(data) + 1) for place in places}), len(data)]
    return [data[start:end] for start, end in pairwise(edges) if start < end]


@given(_kinds, _words, _places, st.booleans(), st.booleans(), st.integers(0, 3))
def test_any_chunking_gives_the_client_the_same_bytes_and_the_record_the_same_counts(
    kind: str, words: list[str], places: list[int], rewrite: bool, crlf: bool, pings: int
) -> None:
    events = STREAMS[kind](*words)
    for place in range(pings):
        events.insert(place * 2 + 1, PING)
    stream = b"".join(events)
    if crlf:
        stream = stream.replace(b"\n", b"\r\n")
    expected = stream.replace(b'"model":"demo:bf16"', b'"model":"demo"') if rewrite else stream
    out, one, times = fed(kind, cut(stream, places), b'"demo"' if rewrite else None)
    assert out == expected
    assert (one.token_chunks, len(times)) == (len(words), len(words))
    assert times == sorted(times)
    assert (one.first_token_at, one.last_token_at) == (times[0], times[-1])
    assert one.usage == Usage(9, len(words), 2)
    assert not one.failed


@pytest.mark.parametrize("kind", STREAMS)
def test_tokens_get_the_time_of_the_read_that_completed_them(kind: str) -> None:
    events = STREAMS[kind]("a", "b", "c", "d")
    first = 3 if kind == "responses" else 2
    one, times = open_watch(kind)
    head, token, rest = events[:first], events[first], events[first + 1 :]
    one.feed(b"".join(head), Seconds(1.0))
    assert one.feed(token[:20], Seconds(2.0)) == b""
    assert one.feed(token[20:], Seconds(3.0)) == token
    assert one.feed(rest[0], Seconds(4.0)) is rest[0]
    assert one.feed(rest[1] + rest[2], Seconds(5.0)) == rest[1] + rest[2]
    assert list(times) == [3.0, 4.0, 5.0, 5.0]


@pytest.mark.parametrize(
    ("kind", "event"),
    [
        ("responses", {"type": "response.reasoning_text.delta", "delta": "hm", "sequence_number": 4}),
        ("responses", {"type": "response.function_call_arguments.delta", "delta": "{", "sequence_number": 4}),
        ("messages", {"type": "content_block_delta", "delta": {"type": "thinking_delta", "thinking": "hm"}}),
        ("messages", {"type": "content_block_delta", "delta": {"type": "input_json_delta", "partial_json": "{"}}),
    ],
)
def test_reasoning_and_tool_calls_are_tokens(kind: str, event: dict[str, Any]) -> None:
    words = STREAMS[kind]("a")
    _, one, times = fed(kind, [named(event), words[3 if kind == "responses" else 2], named(event), *words])
    assert (one.token_chunks, times[:3]) == (4, [1.0, 2.0, 3.0])


@pytest.mark.parametrize(
    ("kind", "event"),
    [
        ("responses", {"type": "response.output_text.delta", "delta": ""}),
        ("messages", {"type": "content_block_delta", "delta": {"type": "signature_delta", "signature": "abc"}}),
        ("messages", {"type": "content_block_delta", "delta": {"type": "text_delta", "text": ""}}),
    ],
)
def test_events_without_text_are_no_tokens(kind: str, event: dict[str, Any]) -> None:
    _, one, _ = fed(kind, [named(event)])
    assert (one.token_chunks, one.first_token_at) == (0, None)


@pytest.mark.parametrize("kind", STREAMS)
def test_names_are_read_from_the_data_where_an_engine_does_not_send_them_apart(kind: str) -> None:
    events = [event.partition(b"\n")[2] for event in STREAMS[kind]("a", "b")]
    out, one, _ = fed(kind, events)
    assert out == b"".join(events)
    assert (one.token_chunks, one.usage) == (2, Usage(9, 2, 2))


@pytest.mark.parametrize(
    ("kind", "event"),
    [
        ("responses", {"type": "error", "code": "x", "message": "out of memory", "sequence_number": 4}),
        ("responses", {"type": "response.failed", "response": {"model": "demo:bf16", "status": "failed"}}),
        ("messages", {"type": "error", "error": {"type": "api_error", "message": "out of memory"}}),
    ],
)
def test_error_that_the_engine_sends_in_the_stream_is_noticed_and_passed_on(kind: str, event: dict[str, Any]) -> None:
    out, one, _ = fed(kind, [*STREAMS[kind]("a")[:4], named(event)])
    assert one.failed
    assert out.endswith(named(event))


def test_answers_length_is_unknown_until_the_messages_end() -> None:
    _, one, _ = fed("messages", messages_stream("a", "b")[:4])
    assert one.usage == Usage(9, None, None)


def test_usage_of_a_response_that_was_cut_short_by_its_bound_is_known() -> None:
    counts = {"input_tokens": 5, "output_tokens": 1, "input_tokens_details": {"cached_tokens": 0}}
    last = named({"type": "response.incomplete", "response": {"usage": counts}})
    assert fed("responses", [*responses_stream("a")[:4], last])[1].usage == Usage(5, 1, 0)


def test_last_event_of_a_response_that_could_not_be_finished_has_the_next_number() -> None:
    error = UpstreamFailedError("The engine died.")
    events = responses_stream("a", "b")
    one, _ = open_watch("responses")
    for event in events[:5]:
        one.feed(event, Seconds(1.0))
    one.feed(events[5][:30], Seconds(2.0))
    name, _, data = one.error_event(error).partition(b"\n")
    assert name == b"event: error"
    assert json.loads(data.removeprefix(b"data: ")) == {
        "type": "error",
        "code": "engine_failed",
        "message": "The engine died.",
        "param": None,
        "sequence_number": 5,
    }
    assert b'"sequence_number":0' in open_watch("responses")[0].error_event(error)


def test_last_event_of_a_message_that_could_not_be_finished_is_an_anthropic_error() -> None:
    event = open_watch("messages")[0].error_event(UpstreamFailedError("The engine died."))
    assert event == named({"type": "error", "error": {"type": "api_error", "message": "The engine died."}})


@pytest.mark.parametrize("kind", STREAMS)
def test_what_is_no_event_of_the_grammar_passes_unread(kind: str) -> None:
    events = [b": ping\n\n", b"data: [DONE]\n\n", b"data: {broken}\n\n", sse({"type": 3}), b"\xff\n\n", b"\n\n"]
    out, one, _ = fed(kind, events, b'"x"')
    assert out == b"".join(events)
    assert (one.token_chunks, one.usage, one.failed) == (0, None, False)
