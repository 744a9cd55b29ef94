"""Following a stream, however the network cuts it."""

from __future__ import annotations

import json
from array import array
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.gateway.grammars.event_watch import MAX_HELD_BYTES
from server.gateway.grammars.openai_watch import OpenAIWatch
from server.gateway.grammars.usage import Usage
from server.units import Seconds
from tests.fakes.scripted_engine import DONE, role, sse, token, usage


def watch(
    pieces: list[bytes], *, strip: bool = True, model: bytes | None = None
) -> tuple[bytes, OpenAIWatch, list[float]]:
    """Feed the pieces, one a second from 1 on."""
    times = array("d")
    one = OpenAIWatch(times=times, strip_usage=strip, model=model)
    out = b"".join(one.feed(piece, Seconds(float(at))) for at, piece in enumerate(pieces, start=1))
    return out + one.finish(Seconds(float(len(pieces)))), one, list(times)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted({place % (len(data) + 1) for place in places}), len(data)]
    return [data[start:end] for start, end in pairwise(edges) if start < end]


def delta(**fields: Any) -> bytes:
    """A chat chunk with something else than content."""
    choice = {"index": 0, "delta": fields, "logprobs": None, "finish_reason": None}
    return sse(
        {"id": "c-1", "object": "chat.completion.chunk", "created": 1, "model": "demo:bf16", "choices": [choice]}
    )


def text_chunk(words: str) -> bytes:
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


_frames = st.one_of(
    st.builds(
        lambda text: (token(text), 1), st.sampled_from(["a", " b", 'say "hi"', "\\", "ä€😀", TRICKY, "\n\n", ""])
    ),
    st.builds(lambda text: (delta(reasoning=text), 1), st.sampled_from(["hm", "", 'x"y', '"'])),
    st.builds(
        lambda text: (delta(tool_calls=[{"index": 0, "function": {"arguments": text}}]), 1),
        st.sampled_from(['{"', "}"]),
    ),
    st.just((b": ping\n\n", 0)),
    st.just((b"event: x\nid: 7\n\n", 0)),
    st.just((b'data: {"choices":[{"delta":{"content":"a"},"finish_reason":null}],"more":1}\n\n', 1)),
    st.just((b'id: 7\ndata: {"choices":[{"delta":{"content":"spaced"}, "finish_reason" : "stop"}]}\n\n', 1)),
    st.just((token("", finish="stop"), 0)),
    st.just((b"data: {not json}\n\n", 0)),
    st.just((text_chunk("two"), 1)),
)


@given(st.lists(_frames, max_size=25), _places, st.booleans(), st.booleans())
def test_events_of_every_kind_in_any_order_are_counted_as_what_they_are(
    frames: list[tuple[bytes, int]], places: list[int], rewrite: bool, crlf: bool
) -> None:
    frames = [(role(), 0), (token("first"), 1), *frames, (usage(9, 5), 0), (DONE, 0)]
    events = b"".join(event for event, _ in frames)
    expected = events.replace(usage(9, 5), b"")
    if crlf:
        events, expected = events.replace(b"\n", b"\r\n"), expected.replace(b"\n", b"\r\n")
    if rewrite:
        expected = expected.replace(b'"model":"demo:bf16"', b'"model":"demo"')
    out, one, times = watch(cut(events, places), model=b'"demo"' if rewrite else None)
    assert out == expected
    assert one.token_chunks == len(times) == sum(tokens for _, tokens in frames)
    assert (one.usage, one.failed) == (Usage(9, 5), False)


def test_event_of_the_template_passes_without_a_copy_and_one_that_is_not_is_read() -> None:
    one = OpenAIWatch(times=array("d"), strip_usage=True, model=None)
    for event in (role(), token("a"), token("b")):
        assert one.feed(event, Seconds(1.0)) is event
    assert one.template is not None
    before, behind, before_out = one.template
    assert before_out == before
    assert before + b"b" + behind == token("b")
    with_usage = before + b'x"},"finish_reason":null}],"usage":{"prompt_tokens":3},"more":[{"d":{"x":"' + behind
    one.feed(with_usage, Seconds(2.0))
    assert one.usage == Usage(3)
    one.feed(before + b'x"},"finish_reason":null}],"error":{"message":"m"},"more":[{"d":{"x":"' + behind, Seconds(2.0))
    assert one.failed


def test_template_follows_an_engine_that_changes_from_reasoning_to_an_answer() -> None:
    one = OpenAIWatch(times=array("d"), strip_usage=True, model=None)
    for event in (role(), delta(reasoning="a"), delta(reasoning="b"), token("c"), token("d")):
        one.feed(event, Seconds(1.0))
    assert one.template is not None
    assert one.template.before + b"d" + one.template.behind == token("d")
    assert one.token_chunks == 4


def test_template_of_a_stream_that_is_changed_says_how() -> None:
    one = OpenAIWatch(times=array("d"), strip_usage=True, model=b'"x"')
    assert one.feed(token("a") + token("b"), Seconds(1.0)).count(b'"model":"x"') == 2
    assert one.template is not None
    assert one.template.before_out + b"d" + one.template.behind == token("d", model="x")
    assert one.feed(token("c"), Seconds(1.0)) == token("c", model="x")


def test_part_of_an_event_that_is_held_back_keeps_its_place() -> None:
    one = OpenAIWatch(times=array("d"), strip_usage=True, model=None)
    one.feed(token("a"), Seconds(1.0))
    assert one.feed(b": pi", Seconds(1.0)) == b""
    assert one.feed(token("b"), Seconds(1.0)) == b": pi" + token("b")


def test_whole_events_go_on_with_the_read_that_completed_them() -> None:
    one = OpenAIWatch(times=array("d"), strip_usage=True, model=None)
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
    _, one, _ = watch([text_chunk(""), text_chunk("a"), text_chunk("b"), DONE])
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
    one = OpenAIWatch(times=array("d"), strip_usage=True, model=None)
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
