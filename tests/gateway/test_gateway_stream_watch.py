"""Following a stream, however the network cuts it."""

from __future__ import annotations

import json
from array import array
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.gateway.openai.stream import MAX_HELD_BYTES, StreamWatch
from server.units import Seconds
from tests.fakes.scripted_engine import DONE, role, sse, token, usage


def watch(
    pieces: list[bytes], *, strip: bool = True, model: bytes | None = None
) -> tuple[bytes, StreamWatch, list[float]]:
    """Feed the pieces, one a second from 1 on."""
    times = array("d")
    one = StreamWatch(times=times, strip_usage=strip, model=model)
    out = b"".join(one.feed(piece, Seconds(float(at))) for at, piece in enumerate(pieces, start=1))
    return out + one.finish(Seconds(float(len(pieces)))), one, list(times)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted({place % (len(data) + 1) for place in places}), len(data)]
    return [data[start:end] for start, end in pairwise(edges) if start < end]


def text(words: str) -> bytes:
    choice = {"index": 0, "text": words, "finish_reason": None}
    return sse({"id": "c", "object": "text_completion", "model": "demo:bf16", "choices": [choice]})


TRICKY = '"usage":{"x":1} "finish_reason":"stop" "error" }\n\n data: [DONE]'
_words = st.sampled_from(["a", " b", TRICKY, "ä€😀", "}", "\\"])
_streams = st.lists(_words, min_size=1, max_size=6)
_places = st.lists(st.integers(0, 5000), max_size=12)


@given(_streams, _places, st.booleans(), st.booleans(), st.booleans())
def test_any_chunking_gives_the_client_the_same_bytes_and_the_record_the_same_counts(
    words: list[str], places: list[int], strip: bool, rewrite: bool, crlf: bool
) -> None:
    kept = [role(), *(token(word) for word in words), token("", finish="stop")]
    events = b"".join([*kept, usage(9, len(words), cached=2), DONE])
    expected = b"".join([*kept, *([] if strip else [usage(9, len(words), cached=2)]), DONE])
    if crlf:
        events, expected = events.replace(b"\n", b"\r\n"), expected.replace(b"\n", b"\r\n")
    if rewrite:
        expected = expected.replace(b'"model":"demo:bf16"', b'"model":"demo"')
    out, one, times = watch(cut(events, places), strip=strip, model=b'"demo"' if rewrite else None)
    assert out == expected
    assert (one.token_chunks, len(times)) == (len(words), len(words))
    assert times == sorted(times)
    assert (one.first_token_at, one.last_token_at) == (times[0], times[-1])
    assert one.usage is not None
    assert (one.usage.prompt_tokens, one.usage.completion_tokens, one.usage.cached_tokens) == (9, len(words), 2)
    assert not one.failed


def test_whole_events_go_on_with_the_read_that_completed_them() -> None:
    one = StreamWatch(times=array("d"), strip_usage=True, model=None)
    first, second = token("a"), token("b")
    assert one.feed(role() + first + second[:10], Seconds(1.0)) == role() + first
    assert one.feed(second[10:], Seconds(2.0)) == second


def test_events_of_one_read_get_the_reads_time() -> None:
    _, one, times = watch([role(), token("a"), token("b") + token("c")])
    assert times == [2.0, 3.0, 3.0]
    assert (one.first_token_at, one.last_token_at) == (2.0, 3.0)


@pytest.mark.parametrize(
    "delta",
    [
        {"reasoning_content": "hm"},
        {"reasoning": "hm"},
        {"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": ""}}]},
    ],
)
def test_reasoning_and_tool_calls_are_first_tokens(delta: dict[str, Any]) -> None:
    frame = sse({"model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
    _, one, _ = watch([role(), frame])
    assert one.first_token_at == 2.0


def test_last_token_that_comes_with_the_finish_reason_is_a_token() -> None:
    _, one, _ = watch([role(), token("a"), token("b", finish="length"), DONE])
    assert one.token_chunks == 2


def test_completions_are_counted_by_their_text() -> None:
    _, one, _ = watch([text(""), text("a"), text("b"), DONE])
    assert one.token_chunks == 2


def test_stream_without_usage_leaves_it_unknown() -> None:
    _, one, _ = watch([role(), token("a"), DONE])
    assert one.usage is None


def test_usage_in_every_frame_is_kept_for_a_client_that_asked_for_it() -> None:
    frames = []
    for number in (1, 2, 3):
        choice = {"index": 0, "delta": {"content": "x"}, "finish_reason": None}
        frames.append(sse({"choices": [choice], "usage": {"prompt_tokens": 5, "completion_tokens": number}}))
    out, one, times = watch([*frames, DONE], strip=False)
    assert out == b"".join(frames) + DONE
    assert (one.usage.completion_tokens, len(times)) == (3, 3)


def test_error_that_the_engine_sends_in_the_stream_is_noticed_and_passed_on() -> None:
    error = sse({"error": {"message": "out of memory", "type": "internal", "code": 500}})
    out, one, _ = watch([role(), token("a"), error, DONE])
    assert one.failed
    assert out == role() + token("a") + error + DONE


def test_comments_are_passed_on_and_are_no_tokens() -> None:
    ping = b": ping\n\n"
    out, one, _ = watch([ping, role(), token("a"), ping, token("b"), DONE])
    assert out.count(ping) == 2
    assert one.token_chunks == 2


def test_last_event_without_its_blank_line_is_not_lost() -> None:
    out, _, _ = watch([role() + token("a"), b"data: [DONE]"])
    assert out.endswith(b"data: [DONE]")


def test_event_without_end_is_passed_on_once_it_is_too_long_to_hold() -> None:
    one = StreamWatch(times=array("d"), strip_usage=True, model=None)
    piece = b"x" * 65_536
    passed = b"".join(one.feed(piece, Seconds(1.0)) for _ in range(20))
    assert len(passed) > MAX_HELD_BYTES


def test_rewriting_touches_only_the_frames_own_model() -> None:
    frame = sse(
        {"model": "org/big", "choices": [{"delta": {"content": '"model":"org/big"', "x": {"model": "org/big"}}}]}
    )
    out, _, _ = watch([frame], model=b'"far:fp8"')
    seen = json.loads(out.removeprefix(b"data: "))
    assert seen["model"] == "far:fp8"
    assert seen["choices"][0]["delta"] == {"content": '"model":"org/big"', "x": {"model": "org/big"}}
