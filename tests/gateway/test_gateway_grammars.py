"""What holds for every grammar, and what is special to those beside chat."""

from __future__ import annotations

import json
from array import array
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.errors import (
    BadRequestError,
    BodyTooLargeError,
    ContendedError,
    NoCapacityError,
    PermissionDeniedError,
    RequestError,
    UnauthenticatedError,
    UnknownModelError,
    UpstreamFailedError,
    UpstreamTimeoutError,
)
from server.gateway.endpoints import ENDPOINTS
from server.gateway.grammars import GRAMMARS, Call, Grammar, Usage
from server.units import Seconds
from tests.fakes.client_mistakes import VALID, mutated

every_grammar = pytest.mark.parametrize("name", sorted(GRAMMARS))


def upstream(grammar: Grammar, body: bytes, call: Call, model: str = "org/big") -> bytes:
    """What the engine gets if the gateway wants usage, as the path asks for it."""
    return grammar.upstream_body(body, call, upstream_model=model, add_usage=not grammar.asks_for_usage(call))


def test_every_endpoint_has_a_grammar_of_the_table_and_every_grammar_an_endpoint() -> None:
    used = {id(endpoint.grammar) for endpoint in ENDPOINTS}
    assert used == {id(grammar) for grammar in GRAMMARS.values()}
    assert set(VALID) == set(GRAMMARS)


def test_every_endpoint_is_documented(root: Path) -> None:
    page = (root / "docs" / "endpoints.md").read_text(encoding="utf-8")
    for endpoint in ENDPOINTS:
        for path in endpoint.paths:
            assert f"`{path}`" in page


@every_grammar
def test_valid_body_is_read_and_only_what_must_change_changes(name: str) -> None:
    grammar, body = GRAMMARS[name], json.dumps(VALID[name], ensure_ascii=False, indent=1).encode()
    call = grammar.parse(body)
    assert (call.model, bool(call.stream)) == ("demo", bool(VALID[name].get("stream")))
    assert grammar.upstream_body(body, call, upstream_model="demo", add_usage=False) is body
    changed = grammar.upstream_body(body, call, upstream_model="org/big", add_usage=False)
    assert changed == body.replace(b'"demo"', b'"org/big"')
    assert {**json.loads(upstream(grammar, body, call)), "stream_options": 0} == {
        **VALID[name], "model": "org/big", "stream_options": 0
    }  # fmt: skip


@every_grammar
@pytest.mark.parametrize("missing", ["model", "messages", "max_tokens"])
def test_missing_member_is_named(name: str, missing: str) -> None:
    if missing not in VALID[name]:
        return
    body = {key: value for key, value in VALID[name].items() if key != missing}
    with pytest.raises(BadRequestError, match=f"`{missing}` is missing") as caught:
        GRAMMARS[name].parse(json.dumps(body).encode())
    assert caught.value.param == missing


@every_grammar
def test_clients_mistakes_of_any_kind_are_bad_requests_and_nothing_else(name: str) -> None:
    random = Random(name)  # a seed, so that a failure comes again
    grammar, valid = GRAMMARS[name], json.dumps(VALID[name]).encode()
    accepted = 0
    for _ in range(4000):
        body = mutated(valid, random)
        try:
            call = grammar.parse(body)
            out = upstream(grammar, body, call)
        except BadRequestError:
            continue
        accepted += 1
        assert isinstance(call, Call)
        assert grammar.parse(out).model == "org/big"
    assert accepted > 40


@given(st.sampled_from(sorted(GRAMMARS)), st.lists(st.binary(max_size=40), max_size=8))
def test_streams_of_nonsense_pass_byte_for_byte(name: str, pieces: list[bytes]) -> None:
    watch = GRAMMARS[name].watch(times=array("d"), strip_usage=True, model=b'"x"')
    out = b"".join(watch.feed(piece, Seconds(1.0)) for piece in pieces) + watch.finish(Seconds(2.0))
    assert out == b"".join(pieces)
    assert (watch.token_chunks, watch.usage) == (0, None)


@every_grammar
def test_whole_answer_gets_another_model_and_nothing_else(name: str) -> None:
    grammar = GRAMMARS[name]
    body = b'{"id":"1", "model" : "demo:bf16","output":[{"model":"demo:bf16"}]}'
    known = grammar.read_answer(body)
    assert known is not None
    assert grammar.rewrite_model(body, known, b'"far"') == body.replace(b' : "demo:bf16"', b' : "far"')


@every_grammar
@pytest.mark.parametrize(
    "body", [b"", b"[1]", b'{"usage":3}', b'{"usage":{"input_tokens":"x","prompt_tokens":"x"}}', b"\xff"]
)
def test_answer_that_is_none_is_not_known(name: str, body: bytes) -> None:
    assert GRAMMARS[name].read_answer(body) is None


@pytest.mark.parametrize(
    ("name", "usage"),
    [
        ("openai", {"prompt_tokens": 9, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 4}}),
        ("responses", {"input_tokens": 9, "output_tokens": 3, "input_tokens_details": {"cached_tokens": 4}}),
        (
            "messages",
            {"input_tokens": 4, "output_tokens": 3, "cache_read_input_tokens": 4, "cache_creation_input_tokens": 1},
        ),
    ],
)
def test_usage_means_the_same_whatever_the_grammar(name: str, usage: dict[str, Any]) -> None:
    known = GRAMMARS[name].read_answer(json.dumps({"usage": usage}).encode())
    assert known is not None
    assert known.usage == Usage(9, 3, 4)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (BadRequestError("x"), "invalid_request_error"),
        (UnauthenticatedError("x"), "authentication_error"),
        (PermissionDeniedError("x"), "permission_error"),
        (UnknownModelError("x"), "not_found_error"),
        (BodyTooLargeError("x"), "request_too_large"),
        (ContendedError("x"), "rate_limit_error"),
        (RequestError("x"), "api_error"),
        (UpstreamFailedError("x"), "api_error"),
        (NoCapacityError("x"), "overloaded_error"),
        (UpstreamTimeoutError("x"), "timeout_error"),
    ],
)
def test_gateways_own_errors_have_the_clients_form(error: RequestError, kind: str) -> None:
    assert json.loads(GRAMMARS["messages"].error_body(error)) == {
        "type": "error",
        "error": {"type": kind, "message": "x"},
    }
    for name in ("openai", "openai_chat", "responses"):
        assert json.loads(GRAMMARS[name].error_body(error)) == error.body()


@every_grammar
def test_errors_are_as_the_documentation_says(name: str) -> None:
    schema: Any = GRAMMARS[name].error_schema
    written = json.loads(GRAMMARS[name].error_body(BadRequestError("x", param="model")))
    assert set(schema["properties"]) == set(written)
    assert set(schema["properties"]["error"]["properties"]) == set(written["error"])


@every_grammar
@pytest.mark.parametrize(
    "body", [b'{"detail":"Not Found"}', b"", b'{"error":{"message":"Not Found","type":"Not Found","code":404}}']
)
def test_engine_without_the_endpoint_is_named(name: str, body: bytes) -> None:
    error = json.loads(GRAMMARS[name].engine_error(body, 404, "engine-a"))["error"]
    assert "The engine engine-a has no such endpoint" in error["message"]
    assert error.get("code", "endpoint_not_supported") == "endpoint_not_supported"
    assert error["type"] in {"invalid_request_error", "not_found_error"}


@every_grammar
@pytest.mark.parametrize(
    "body", [b"<html>", b'{"error":7}', b'{"message":{"a":1}}', b'{"error":{"message":"why"}}', b"[]"]
)
def test_engines_errors_of_any_form_become_errors_of_the_grammar(name: str, body: bytes) -> None:
    error = json.loads(GRAMMARS[name].engine_error(body, 500, "engine-a"))["error"]
    assert isinstance(error["message"], str)
    assert error["message"]


def test_anthropic_error_of_an_engine_passes_and_one_with_another_type_gets_the_status_own() -> None:
    engine_error = GRAMMARS["messages"].engine_error
    good = b'{"type": "error", "error": {"type": "overloaded_error", "message": "full", "more": 1}}'
    assert engine_error(good, 529, "engine-a") is good
    vllm = b'{"type":"error","error":{"type":"BadRequestError","message":"too long"}}'
    assert json.loads(engine_error(vllm, 400, "engine-a"))["error"] == {
        "type": "invalid_request_error", "message": "too long"
    }  # fmt: skip


# --- Responses, stateless ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("member", "value", "instead"),
    [
        ("store", True, "send `store: false`"),
        ("background", True, "read the answer as a stream"),
        ("previous_response_id", "resp_1", "earlier turns in `input`"),
        ("conversation", {"id": "conv_1"}, "earlier turns in `input`"),
    ],
)
def test_what_needs_a_memory_is_refused_with_what_to_send_instead(member: str, value: Any, instead: str) -> None:
    body = {"model": "demo", "input": "Hi", member: value}
    with pytest.raises(BadRequestError, match=f"stateless.*{instead}") as caught:
        GRAMMARS["responses"].parse(json.dumps(body).encode())
    assert caught.value.param == member


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        (b'{"model":"demo","input":"Hi"}', b'{"model":"demo","input":"Hi","store":false}'),
        (b'{"model":"demo","store" : null,"input":"Hi"}', b'{"model":"demo","store" : false,"input":"Hi"}'),
        (b'{"model":"demo","store" : false,"input":"Hi"}', b'{"model":"demo","store" : false,"input":"Hi"}'),
    ],
)
def test_engine_is_told_to_store_nothing(written: bytes, sent: bytes) -> None:
    grammar = GRAMMARS["responses"]
    assert grammar.upstream_body(written, grammar.parse(written), upstream_model="demo", add_usage=False) == sent
