"""What becomes of an answer: a record with its counts, or its failure."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen._answer import Answer
from loadgen._measure import record_of
from loadgen._record import Record
from loadgen._run import Job
from loadgen._workloads import Ask

CHAT, EMBEDDINGS = "/v1/chat/completions", "/v1/embeddings"
USAGE = {"prompt_tokens": 9, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 8}}


def job(endpoint: Any = CHAT, *, streamed: bool = False) -> Job:
    body = {"model": "demo", "stream": streamed}
    ask = Ask(model="demo", endpoint=endpoint, body=body, prompt_tokens=10, output_tokens=4)
    return Job(index=3, ask=ask, scheduled_s=1.0, warm_up=False, request_id="load-s-3")


def whole(body: Any, endpoint: str = CHAT, *, open_loop: bool = True) -> Record:
    answer = Answer(streamed=False, sent_s=1.5, add_lag=lambda _: None)
    answer.take(200, body if isinstance(body, bytes) else json.dumps(body).encode(), 2.5, 0.25)
    answer.end(200)
    return record_of(job(endpoint), answer, open_loop=open_loop)


def test_whole_answer_has_its_counts_and_its_end() -> None:
    choice = {"message": {"role": "assistant", "content": "hello"}, "finish_reason": "stop"}
    record = whole({"model": "demo:int8", "choices": [choice], "usage": USAGE})
    assert record.ok
    assert not record.streamed
    assert (record.prompt_tokens, record.output_tokens, record.cached_tokens) == (9, 4, 8)
    assert (record.prompt_tokens_wanted, record.served_by, record.finish_reason) == (10, "demo:int8", "stop")
    assert (record.scheduled_s, record.sent_s, record.ended_s) == (1.0, 1.5, 2.25)
    assert (record.request_id, record.endpoint, record.receive_lag_s) == ("load-s-3", CHAT, 0.25)
    assert record.time_to_first_token_s is None


def test_request_of_closed_loop_is_due_when_it_is_sent() -> None:
    assert whole({"choices": [{"text": "a"}]}, open_loop=False).scheduled_s == 1.5


def test_embedding_is_whole_without_a_single_token() -> None:
    record = whole({"data": [{"embedding": [0.5]}], "usage": {"prompt_tokens": 9, "total_tokens": 9}}, EMBEDDINGS)
    assert record.ok
    assert (record.prompt_tokens, record.output_tokens) == (9, None)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({"choices": [], "usage": USAGE}, "empty"),
        ({"choices": [{"message": {"content": ""}}]}, "empty"),
        ({"data": []}, "empty"),
        ({"error": {"message": "the engine died"}}, "error_event"),
        ({"choices": 7}, "malformed"),
        (b"<html>", "malformed"),
        (b"", "malformed"),
    ],
)
def test_body_that_says_nothing_is_a_failure(body: Any, kind: str) -> None:
    record = whole(body)
    assert record.error == kind
    assert record.message


def test_refusal_keeps_its_status_and_what_it_said() -> None:
    answer = Answer(streamed=True, sent_s=1.5, add_lag=lambda _: None)
    answer.take(429, b'{"error": "later"}', 1.75, None)
    answer.end(429)
    answer.fail("http_429", answer.body.decode(), answer.ended_s)
    record = record_of(job(streamed=True), answer, open_loop=True)
    assert (record.error, record.message, record.ended_s) == ("http_429", '{"error": "later"}', 1.75)


def test_stream_ends_with_done_whatever_comes_after_it() -> None:
    answer = Answer(streamed=True, sent_s=1.5, add_lag=lambda _: None)
    answer.take(200, b'data: {"choices": [{"delta": {"content": "a"}}]}\n\ndata: [DONE]\n\n', 2.0, None)
    answer.take(200, b"\n", 9.0, None)
    answer.end(200)
    record = record_of(job(streamed=True), answer, open_loop=True)
    assert record.ok
    assert (record.token_s, record.ended_s) == ((2.0,), 2.0)


@given(st.binary(max_size=60) | st.from_regex(rb'\{"(choices|data|usage|error)": .{0,20}\}', fullmatch=True))
def test_no_body_whatever_breaks_the_reading(body: bytes) -> None:
    assert whole(body).error in {None, "malformed", "empty", "error_event"}
