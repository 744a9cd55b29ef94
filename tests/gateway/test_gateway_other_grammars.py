"""The Responses and the Messages API, end to end on real sockets."""

from __future__ import annotations

import json
from collections import Counter
from random import Random
from typing import Any

import httpx
import openai
import pytest

from server.gateway.endpoints import ENDPOINTS, Endpoint
from server.gateway.grammars import GRAMMARS
from tests.fakes.client_mistakes import VALID, mutated
from tests.fakes.scripted_engine import (
    EngineConnection,
    chunked,
    messages_stream,
    named,
    responses_stream,
    stream,
    whole,
)
from tests.gateway.house import House, candidate, open_house, route

pytestmark = pytest.mark.anyio

PATHS = {"responses": "/v1/responses", "messages": "/v1/messages", "count_tokens": "/v1/messages/count_tokens"}
BODIES: dict[str, dict[str, Any]] = {
    "responses": {"model": "demo:bf16", "input": "Hi"},
    "messages": {"model": "demo:bf16", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 8},
    "count_tokens": {"model": "demo:bf16", "messages": [{"role": "user", "content": "Hi"}]},
}
STREAMS = {"responses": responses_stream, "messages": messages_stream}
ANSWERS: dict[str, dict[str, Any]] = {
    "responses": {
        "id": "resp_1",
        "object": "response",
        "model": "demo:bf16",
        "output": [{"type": "message", "content": [{"type": "output_text", "text": "Hello", "annotations": []}]}],
        "usage": {"input_tokens": 9, "output_tokens": 3, "input_tokens_details": {"cached_tokens": 4}},
    },
    "messages": {
        "id": "msg_1",
        "type": "message",
        "model": "demo:bf16",
        "content": [{"type": "text", "text": "Hello"}],
        "usage": {"input_tokens": 5, "output_tokens": 3, "cache_read_input_tokens": 4},
    },
}
streaming = pytest.mark.parametrize("kind", sorted(STREAMS))


async def ask(house: House, kind: str, **changes: Any) -> httpx.Response:
    return await house.client.post(PATHS[kind], json={**BODIES[kind], **changes})


def says(kind: str, response: httpx.Response) -> dict[str, Any]:
    """The error in an answer, which must have the form of its grammar."""
    assert response.headers["content-type"] == "application/json"
    answer = response.json()
    if kind == "responses":
        assert set(answer["error"]) == {"message", "type", "param", "code"}
    else:
        assert (answer["type"], set(answer["error"])) == ("error", {"type", "message"})
    return dict(answer["error"])


@streaming
async def test_whole_answer_reaches_the_client_byte_for_byte_and_is_recorded(house: House, kind: str) -> None:
    house.engine.then(whole(ANSWERS[kind]))
    response = await ask(house, kind)
    assert response.content == json.dumps(ANSWERS[kind]).encode()
    assert house.engine.requests[0].target == f"POST {PATHS[kind]} HTTP/1.1"
    record = await house.control.record()
    assert (record.endpoint, record.outcome, record.streamed) == (kind, "ok", False)
    assert (record.prompt_tokens, record.cached_tokens, record.output_tokens) == (9, 4, 3)


@streaming
async def test_stream_reaches_the_client_byte_for_byte_and_is_counted(house: House, kind: str) -> None:
    events = STREAMS[kind]("a", "b", 'say "c"')
    house.engine.then(stream(*events))
    response = await ask(house, kind, stream=True)
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.content == b"".join(events)
    record = await house.control.record()
    assert (record.endpoint, record.outcome, record.streamed) == (kind, "ok", True)
    assert (record.prompt_tokens, record.cached_tokens, record.output_tokens, record.token_chunks) == (9, 2, 3, 3)
    assert record.sent_at <= record.first_token_at <= record.last_token_at <= record.upstream_done_at


@streaming
async def test_body_reaches_the_engine_as_it_is_but_for_what_makes_it_stateless(house: House, kind: str) -> None:
    await ask(house, kind, stream=True, unknown={"x": 1})
    sent = {**BODIES[kind], "stream": True, "unknown": {"x": 1}}
    assert house.engine.requests[0].json == ({**sent, "store": False} if kind == "responses" else sent)


@streaming
@pytest.mark.parametrize("streamed", [True, False])
async def test_engine_that_calls_the_model_otherwise_is_asked_and_quoted_in_the_right_names(
    house: House, kind: str, streamed: bool
) -> None:
    far = candidate(upstream_model="org/big", answer_model="far:fp8")
    await house.know(route("far", far), rewrite_model=True)
    answer = {**ANSWERS[kind], "model": "org/big"}
    events = STREAMS[kind]("a", "b", model="org/big")
    house.engine.then(stream(*events) if streamed else whole(answer))
    response = await ask(house, kind, model="far", stream=streamed)
    assert house.engine.requests[0].json["model"] == "org/big"
    if streamed:
        assert response.content == b"".join(STREAMS[kind]("a", "b", model="far:fp8"))
    else:
        assert response.json() == {**answer, "model": "far:fp8"}


@streaming
async def test_engine_that_dies_in_a_stream_ends_it_with_an_error_event_and_the_connection(
    house: House, kind: str
) -> None:
    events = STREAMS[kind]("a", "b", "c")
    first = 3 if kind == "responses" else 2

    async def script(connection: EngineConnection) -> None:
        connection.stream_head()
        connection.event(*events[: first + 2], events[first + 2][:25])
        connection.close()

    house.engine.then(script)
    response = await ask(house, kind, stream=True)
    assert response.headers.get("connection") != "keep-alive"
    before, name, last = response.content.rpartition(b"event: error\n")
    assert name
    assert before == b"".join(events[: first + 2])
    error = json.loads(last.removeprefix(b"data: "))
    if kind == "responses":
        assert (error["type"], error["code"], error["sequence_number"]) == ("error", "engine_failed", first + 2)
        assert error["message"]
    else:
        assert (error["type"], error["error"]["type"]) == ("error", "api_error")
    record = await house.control.record()
    assert (record.outcome, record.token_chunks, record.output_tokens) == ("truncated", 2, None)


@streaming
async def test_error_that_the_engine_puts_into_its_stream_counts_as_one(house: House, kind: str) -> None:
    failed = {"type": "error", "error": {"type": "api_error", "message": "out of memory"}, "message": "out of memory"}
    if kind == "messages":
        del failed["message"]
    house.engine.then(stream(*STREAMS[kind]("a")[:4], named(failed)))
    assert (await ask(house, kind, stream=True)).content.endswith(named(failed))
    assert (await house.control.record()).outcome == "truncated"


@pytest.mark.parametrize("kind", PATHS)
async def test_engine_without_the_endpoint_is_a_404_that_says_so(house: House, kind: str) -> None:
    house.engine.then(whole({"detail": "Not Found"}, 404))
    response = await ask(house, kind)
    assert response.status_code == 404
    assert "The engine engine-a has no such endpoint" in says(kind, response)["message"]
    assert (await house.control.record()).outcome == "client_error"


@pytest.mark.parametrize("kind", PATHS)
@pytest.mark.parametrize(
    ("changes", "status", "openais", "anthropics"),
    [
        ({"model": "nothing"}, 404, "invalid_request_error", "not_found_error"),
        ({"model": 3}, 400, "invalid_request_error", "invalid_request_error"),
        ({"filler": "x" * 10_000}, 413, "invalid_request_error", "request_too_large"),
    ],
)
async def test_gateways_own_refusals_have_the_form_of_the_grammar(
    kind: str, changes: dict[str, Any], status: int, openais: str, anthropics: str
) -> None:
    async with open_house(max_body_bytes=5000) as house:
        await house.know()
        response = await ask(house, kind, **changes)
        assert response.status_code == status
        assert says(kind, response)["type"] == (openais if kind == "responses" else anthropics)


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda one: one.name)
async def test_no_mistake_of_a_client_is_a_failure_of_the_gateway(house: House, endpoint: Endpoint) -> None:
    random = Random(endpoint.name)  # a seed, so that a failure comes again
    (task,) = sorted(endpoint.tasks)[:1]
    await house.know(route("demo", candidate(), task=task))
    name = next(name for name, grammar in GRAMMARS.items() if grammar is endpoint.grammar)
    valid = json.dumps(VALID[name]).encode()
    seen: Counter[int] = Counter()
    for _ in range(150):
        response = await house.client.post(endpoint.paths[0], content=mutated(valid, random))
        assert response.headers["content-type"] == "application/json"
        seen[response.status_code] += 1
    assert set(seen) <= {200, 400, 404}
    assert seen[200] >= 1


async def test_wrong_verb_is_told_in_the_form_of_the_grammar(house: House) -> None:
    response = await house.client.get("/v1/messages")
    assert (response.status_code, says("messages", response)["type"]) == (405, "invalid_request_error")


async def test_response_that_would_have_to_be_stored_is_refused_before_any_engine_sees_it(house: House) -> None:
    response = await ask(house, "responses", store=True)
    assert (response.status_code, says("responses", response)["param"]) == (400, "store")
    assert house.engine.requests == []


async def test_clients_that_put_a_query_behind_the_path_are_served(house: House) -> None:
    house.engine.then(whole(ANSWERS["messages"]))
    response = await house.client.post("/v1/messages?beta=true", json=BODIES["messages"])
    assert response.status_code == 200
    assert (await house.control.record()).endpoint == "messages"


async def test_tokens_are_counted_by_the_engine_and_not_as_traffic(house: House) -> None:
    house.engine.then(whole({"input_tokens": 7}))
    assert (await ask(house, "count_tokens")).json() == {"input_tokens": 7}
    record = await house.control.record()
    assert (record.endpoint, record.prompt_tokens, record.output_tokens) == ("count_tokens", None, None)


async def test_events_cut_anywhere_arrive_whole(house: House) -> None:
    data = b"".join(messages_stream("a", "b"))

    async def script(connection: EngineConnection) -> None:
        connection.stream_head()
        for start in range(0, len(data), 7):
            connection.send(chunked(data[start : start + 7]))
        connection.send(chunked(b""))

    house.engine.then(script)
    assert (await ask(house, "messages", stream=True)).content == data
    assert (await house.control.record()).token_chunks == 2


async def test_official_client_streams_a_response_and_raises_what_the_engines_death_left(house: House) -> None:
    async def dies(connection: EngineConnection) -> None:
        connection.stream_head()
        connection.event(*responses_stream("a", "b")[:4])
        connection.close()

    house.engine.then(stream(*responses_stream("a", "b")), dies)
    async with openai.AsyncOpenAI(base_url=f"{house.client.base_url}/v1", api_key="unused", max_retries=0) as client:
        events = [event async for event in await client.responses.create(model="demo", input="Hi", stream=True)]
        assert [event.delta for event in events if event.type == "response.output_text.delta"] == ["a", "b"]
        assert events[-1].type == "response.completed"
        events = [event async for event in await client.responses.create(model="demo", input="Hi", stream=True)]
        assert (events[-1].type, events[-1].sequence_number) == ("error", 4)
