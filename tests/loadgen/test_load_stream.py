"""What is a token, when an answer is whole, and what its times are."""

from __future__ import annotations

import json
from typing import Any

import pytest

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
    assert (stream.prompt_tokens, stream.cached_tokens, stream.output_tokens) == (40, 16, 3)
    assert stream.served_by == "demo:int8"


def test_stream_without_usage_has_unknown_counts() -> None:
    stream = read((delta(content="abc"), 1.0), (DONE, 2.0))
    assert stream.output_tokens is None


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


def test_answer_without_usage_has_no_time_per_output_token() -> None:
    assert record(1.0, 2.0).time_per_output_token_s is None


def test_tokens_outside_of_the_window_do_not_count_in_it() -> None:
    one = record(1.0, 2.0, 3.0, 4.0, output_tokens=4)
    assert one.output_tokens_between(2.0, 4.0) == 2.0
    assert one.output_tokens_between(0.0, 9.0) == 4.0


def test_record_survives_its_way_to_the_master() -> None:
    one = record(1.0, 2.0, output_tokens=2)
    assert Record.from_json(json.loads(json.dumps(one.to_json()))) == one
