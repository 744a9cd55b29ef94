"""What is a token, when an answer is whole, and what its times are."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen._record import Record
from loadgen._stream import EMPTY, ERROR_EVENT, MALFORMED, TRUNCATED, ChatStream


def data(value: Any) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n"


def delta(**fields: Any) -> bytes:
    return data({"model": "demo:int8", "choices": [{"index": 0, "delta": fields, "finish_reason": None}]})


ROLE = delta(role="assistant", content="")
DONE = b"data: [DONE]\n"
USAGE = data(
    {
        "model": "demo:int8",
        "choices": [],
        "usage": {
            "prompt_tokens": 40,
            "completion_tokens": 3,
            "total_tokens": 43,
            "prompt_tokens_details": {"cached_tokens": 16},
        },
    }
)


def read(*lines: tuple[bytes, float]) -> ChatStream:
    stream = ChatStream()
    for line, at in lines:
        stream.feed(line, at)
    return stream


def record(
    *token_s: float, scheduled_s: float = 1.0, sent_s: float = 1.0, output_tokens: int | None = None, **more: Any
) -> Record:
    values = {
        "index": 0,
        "model": "demo",
        "served_by": "demo:bf16",
        "warm_up": False,
        "ended_s": token_s[-1] if token_s else sent_s,
        "prompt_tokens": 10,
        "cached_tokens": None,
        "finish_reason": "length",
        "error": None,
        "message": None,
        **more,
    }
    return Record(scheduled_s=scheduled_s, sent_s=sent_s, token_s=token_s, output_tokens=output_tokens, **values)


def test_frame_that_only_opens_the_answer_is_no_token() -> None:
    stream = read((ROLE, 1.0), (b"\n", 1.0), (delta(content="a"), 1.5), (delta(content="b"), 1.75), (DONE, 2.0))
    assert stream.token_at == [1.5, 1.75]
    assert stream.done_at == 2.0
    assert stream.failure() is None


def test_frame_that_only_closes_the_answer_is_no_token() -> None:
    closing = data({"choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": "stop"}]})
    stream = read((delta(content="a"), 1.0), (closing, 2.0), (DONE, 2.0))
    assert stream.token_at == [1.0]
    assert stream.finish_reason == "stop"


@pytest.mark.parametrize(
    "fields",
    [
        {"reasoning_content": "hm"},
        {"reasoning": "hm"},
        {"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": ""}}]},
    ],
)
def test_reasoning_and_tool_calls_are_tokens(fields: dict[str, Any]) -> None:
    assert read((ROLE, 1.0), (delta(**fields), 2.0)).token_at == [2.0]


def test_token_counts_come_from_usage() -> None:
    stream = read((delta(content="abc"), 1.0), (USAGE, 2.0), (DONE, 2.0))
    assert stream.usage is not None
    assert (stream.usage.prompt_tokens, stream.usage.cached_tokens, stream.usage.completion_tokens) == (40, 16, 3)
    assert stream.served_by == "demo:int8"


def test_stream_without_usage_has_unknown_counts() -> None:
    stream = read((delta(content="abc"), 1.0), (DONE, 2.0))
    assert stream.usage is None


def test_stream_that_is_cut_in_the_middle_is_a_failure() -> None:
    failure = read((ROLE, 1.0), (delta(content="a"), 1.5)).failure()
    assert failure is not None
    assert failure[0] == TRUNCATED


@pytest.mark.parametrize(
    "lines",
    [
        [data({"error": {"message": "the engine died", "code": 500}})],
        [b"event: error\n", data({"error": {"message": "the engine died"}})],
        [b"event: error\n", data({"message": "the engine died"})],
    ],
)
def test_error_event_is_a_failure_even_if_done_follows(lines: list[bytes]) -> None:
    stream = read((delta(content="a"), 1.0), *((line, 2.0) for line in lines), (DONE, 3.0))
    assert stream.failure() == (ERROR_EVENT, "the engine died")


@pytest.mark.parametrize("line", [b'data: {"choices"\n', b"data: 7\n", b'data: {"choices": 7}\n'])
def test_nonsense_is_a_failure(line: bytes) -> None:
    failure = read((line, 1.0), (DONE, 2.0)).failure()
    assert failure is not None
    assert failure[0] == MALFORMED


def test_answer_without_a_token_is_a_failure() -> None:
    failure = read((ROLE, 1.0), (DONE, 2.0)).failure()
    assert failure is not None
    assert failure[0] == EMPTY


def test_comments_and_unknown_fields_change_nothing() -> None:
    stream = read((b": ping\n", 0.5), (b"id: 7\n", 0.6), (delta(content="a"), 1.0), (DONE, 2.0))
    assert stream.token_at == [1.0]
    assert stream.failure() is None


def test_times_of_one_token_a_chunk_are_the_gaps_between_chunks() -> None:
    one = record(1.25, 1.5, 2.0, sent_s=1.125, output_tokens=3)
    assert one.time_to_first_token_s == 0.25
    assert one.time_to_first_token_from_sent_s == 0.125
    assert one.inter_token_latencies_s == [0.25, 0.5]
    assert one.time_per_output_token_s == 0.375
    assert one.end_to_end_s == 1.0
    assert one.one_token_a_chunk


def test_gaps_are_spread_over_their_tokens_where_a_chunk_holds_several() -> None:
    one = record(1.0, 2.0, 3.0, output_tokens=5)
    assert not one.one_token_a_chunk
    assert one.inter_token_latencies_s == [0.5, 0.5]
    assert one.time_per_output_token_s == 0.5


def test_answer_of_one_token_has_no_gap_and_no_time_per_output_token() -> None:
    one = record(1.5, output_tokens=1)
    assert one.inter_token_latencies_s == []
    assert one.time_per_output_token_s is None
    assert one.time_to_first_token_s == 0.5


def test_answer_without_usage_has_gaps_between_chunks_but_none_between_tokens() -> None:
    one = record(1.0, 2.0)
    assert one.time_per_output_token_s is None
    assert one.inter_token_latencies_s == []
    assert one.inter_chunk_latencies_s == [1.0]
    assert one.tokens_at() == []


def test_gaps_are_those_of_the_chunks_own_tokens_where_the_server_counts_each_chunk() -> None:
    one = record(1.0, 2.0, 5.0, output_tokens=6, chunk_tokens=(2, 1, 3))
    assert one.inter_token_latencies_s == [1.0, 1.0]
    assert one.inter_chunk_latencies_s == [1.0, 3.0]
    assert one.tokens_at() == [(1.0, 2.0), (2.0, 1.0), (5.0, 3.0)]
    assert one.output_tokens_between(2.0, 6.0) == 4.0


def test_more_chunks_than_tokens_say_nothing_of_tokens() -> None:
    assert record(1.0, 2.0, 3.0, output_tokens=2).token_basis is None


def counted(text: str, so_far: int | None) -> bytes:
    usage = {} if so_far is None else {"usage": {"prompt_tokens": 4, "completion_tokens": so_far}}
    return data({"choices": [{"index": 0, "delta": {"content": text}}], **usage})


@pytest.mark.parametrize(
    ("so_far", "expected"),
    [((2, 3, 7), (2, 1, 4)), ((1, 2, 3), (1, 1, 1)), ((1, None, 3), None), ((1, 1, 3), None), ((None,) * 3, None)],
)
def test_tokens_of_each_chunk_are_known_only_if_every_chunk_counts_on(
    so_far: tuple[int | None, ...], expected: tuple[int, ...] | None
) -> None:
    lines = [(counted("x", number), float(at)) for at, number in enumerate(so_far)]
    assert read((ROLE, 0.0), *lines, (DONE, 9.0)).chunk_tokens == expected


def test_completions_are_streams_of_text() -> None:
    piece = data({"model": "m", "choices": [{"index": 0, "text": "a", "finish_reason": None}]})
    empty = data({"model": "m", "choices": [{"index": 0, "text": "", "finish_reason": "stop"}]})
    stream = read((piece, 1.0), (empty, 2.0), (DONE, 2.0))
    assert (stream.token_at, stream.finish_reason, stream.failure()) == ([1.0], "stop", None)


@given(st.lists(st.binary(max_size=80), max_size=8))
def test_no_bytes_whatever_break_the_reading(lines: list[bytes]) -> None:
    stream = read(*((b"data: " + line.replace(b"\n", b""), 1.0) for line in lines))
    assert stream.failure() is not None or stream.done_at is not None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["choices", "delta", "usage", "content", "error", "model"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@given(json_values)
def test_no_json_whatever_breaks_the_reading(value: Any) -> None:
    assert read((data(value), 1.0), (DONE, 2.0)).done_at in {None, 2.0}


def test_tokens_outside_of_the_window_do_not_count_in_it() -> None:
    one = record(1.0, 2.0, 3.0, 4.0, output_tokens=4)
    assert one.output_tokens_between(2.0, 4.0) == 2.0
    assert one.output_tokens_between(0.0, 9.0) == 4.0


def test_record_survives_its_way_to_the_master() -> None:
    one = record(1.0, 2.0, output_tokens=2)
    assert Record.from_json(json.loads(json.dumps(one.to_json()))) == one
