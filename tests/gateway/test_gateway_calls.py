"""What a request's body may be, and what is said of one that may not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from server.errors import BadRequestError
from server.gateway.endpoints import ENDPOINTS
from server.gateway.grammars import Call

CHAT = ENDPOINTS[0].grammar


def read(body: Any) -> Call:
    return CHAT.parse(body if isinstance(body, bytes) else json.dumps(body).encode())


def sent(body: dict[str, Any], model: str = "demo") -> dict[str, Any]:
    """What the engine reads when the gateway wants usage."""
    raw = json.dumps(body).encode()
    call = read(raw)
    return json.loads(CHAT.upstream_body(raw, call, upstream_model=model, add_usage=not CHAT.asks_for_usage(call)))


@pytest.mark.parametrize(
    ("body", "param", "says"),
    [
        ({"messages": []}, "model", "`model` is missing"),
        ({"model": "a"}, "messages", "`messages` is missing"),
        ({"model": 3, "messages": []}, "model", "expected `str`, got `int`"),
        ({"model": "", "messages": []}, "model", "`model` is empty"),
        ({"model": None, "messages": []}, "model", "`model` has a wrong type"),
        ({"model": "a", "messages": "hi"}, "messages", "expected `array`, got `str`"),
        ({"model": "a", "messages": [], "stream": "yes"}, "stream", "`stream` has a wrong type"),
        ({"model": "a", "messages": [], "stream_options": 1}, "stream_options", "`stream_options` has a wrong type"),
    ],
)
def test_wrong_field_is_named(body: Any, param: str, says: str) -> None:
    with pytest.raises(BadRequestError, match=says) as caught:
        read(body)
    assert caught.value.param == param


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
def test_bound_of_tokens_is_left_to_the_engine_to_judge(field: str) -> None:
    assert read({"model": "a", "messages": [], field: 16.0}).model == "a"


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b'{"model":"a",}', r"byte 12|byte 13"),
        (b"", "not valid JSON"),
        (b'{"model": "a"', "not valid JSON"),
        (b"\xef\xbb\xbf{}", r"byte 0"),
        (b"[1, 2]", "must be one JSON object"),
        (b'"text"', "must be one JSON object"),
        (b'{"model":"\xff","messages":[]}', "not valid UTF-8"),
        (b'{"model":"a","messages":' + b"[" * 100_000, "nested too deeply"),
    ],
)
def test_body_that_is_no_json_object_is_refused_with_the_place(body: bytes, says: str) -> None:
    with pytest.raises(BadRequestError, match=says):
        read(body)


def test_body_that_needs_no_change_goes_out_byte_for_byte() -> None:
    raw = b'{ "model":"demo","messages":[ ], "unknown" : {"x":[1,2]} }'
    assert CHAT.upstream_body(raw, read(raw), upstream_model="demo", add_usage=False) is raw


def test_only_the_name_changes_when_the_engine_calls_the_model_otherwise() -> None:
    raw = b'{ "model":"demo","messages":[{"model":"demo"}], "seed" : 1 }'
    out = CHAT.upstream_body(raw, read(raw), upstream_model="org/big", add_usage=False)
    assert out == b'{ "model":"org/big","messages":[{"model":"demo"}], "seed" : 1 }'


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (None, {"include_usage": True}),
        ({}, {"include_usage": True}),
        ({"include_usage": False}, {"include_usage": True}),
        ({"include_usage": False, "other": 1}, {"include_usage": True, "other": 1}),
        ({"continuous_usage_stats": True}, {"include_usage": True}),
    ],
)
def test_usage_is_asked_for_whatever_the_client_wrote_into_stream_options(options: Any, expected: Any) -> None:
    assert sent({"model": "demo", "messages": [], "stream_options": options})["stream_options"] == expected


def test_options_that_only_the_engine_knows_go_out_as_they_came() -> None:
    raw = b'{"model":"demo","messages":[],"stream_options":{"n": 1e400,"big":123456789012345678901234567890}}'
    out = CHAT.upstream_body(raw, read(raw), upstream_model="demo", add_usage=True)
    assert out == raw.replace(b'{"n": 1e400', b'{"n":1e400')[:-2] + b',"include_usage":true}}'


def test_usage_is_asked_for_when_the_client_wrote_no_stream_options() -> None:
    assert sent({"model": "demo", "messages": []})["stream_options"] == {"include_usage": True}


def test_options_of_a_client_that_asks_for_usage_are_left_alone() -> None:
    body = {"model": "demo", "messages": [], "stream_options": {"include_usage": True, "continuous_usage_stats": True}}
    assert sent(body) == body


def test_wish_for_usage_that_is_no_boolean_is_refused() -> None:
    with pytest.raises(BadRequestError, match=r"include_usage.*true or false"):
        CHAT.asks_for_usage(read({"model": "demo", "messages": [], "stream_options": {"include_usage": "yes"}}))
