"""The path of a request, end to end on real sockets: what goes well."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.fakes.scripted_engine import DONE, SSE, EngineConnection, chunked, head, role, stream, token, usage, whole
from tests.gateway.house import ANSWER, MESSAGES, House, candidate, route

pytestmark = pytest.mark.anyio


async def test_whole_answer_reaches_the_client_byte_for_byte_and_is_recorded(house: House) -> None:
    house.engine.then(whole(ANSWER))
    response = await house.chat()
    assert response.status_code == 200
    assert response.content == json.dumps(ANSWER).encode()
    assert response.headers["x-wattgate-engine"] == "engine-a"
    record = await house.control.record()
    assert (record.outcome, record.status, record.streamed) == ("ok", 200, False)
    assert (record.prompt_tokens, record.cached_tokens, record.output_tokens) == (9, 4, 3)
    assert (record.model, record.variant, record.engine, record.tenant) == ("demo", "bf16", "engine-a", "default")
    assert record.received_at <= record.sent_at <= record.first_byte_at <= record.upstream_done_at <= record.ended_at


async def test_stream_without_wish_for_usage_is_counted_and_its_usage_frame_is_stripped(house: House) -> None:
    sent = (role(), token("a"), token("b"), token("", finish="stop"))
    house.engine.then(stream(*sent, usage(9, 2, cached=0), DONE))
    response = await house.chat(stream=True)
    assert response.content == b"".join(sent) + DONE
    assert response.headers["content-type"] == SSE.decode()
    assert json.loads(house.engine.bodies[0])["stream_options"] == {"include_usage": True}
    record = await house.control.record()
    assert (record.outcome, record.streamed, record.token_chunks) == ("ok", True, 2)
    assert (record.prompt_tokens, record.cached_tokens, record.output_tokens) == (9, 0, 2)
    assert record.sent_at <= record.first_token_at <= record.last_token_at <= record.ended_at


async def test_stream_with_wish_for_usage_goes_through_untouched_both_ways(house: House) -> None:
    events = (role(), token("a"), usage(9, 1), DONE)
    house.engine.then(stream(*events))
    body = b'{"model":"demo:bf16", "stream":true,"messages":[],"stream_options":{"include_usage":true}}'
    response = await house.client.post("/v1/chat/completions", content=body)
    assert house.engine.bodies == [body]
    assert response.content == b"".join(events)


async def test_chunk_is_on_its_way_before_the_next_one_exists(house: House) -> None:
    go_on = asyncio.Event()

    async def script(connection: EngineConnection) -> None:
        connection.stream_head()
        connection.event(role(), token("a"))
        await go_on.wait()
        connection.event(token("b"), DONE)
        connection.send(chunked(b""))

    house.engine.then(script)
    body = {"model": "demo", "messages": MESSAGES, "stream": True}
    async with house.client.stream("POST", "/v1/chat/completions", json=body) as response:
        pieces = response.aiter_raw()
        first = await anext(pieces)
        while b'"a"' not in first:
            first += await anext(pieces)
        assert b'"b"' not in first
        go_on.set()
        rest = b"".join([piece async for piece in pieces])
    assert rest == token("b") + DONE


async def test_unknown_fields_and_multimodal_content_reach_the_engine_untouched(house: House) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    body = b'{"model":"demo:bf16","x_new":[1,{"model":"q"}],"messages":[{"role":"user","content":[%b]}] }'
    body %= json.dumps(image).encode()
    await house.client.post("/v1/chat/completions", content=body)
    assert house.engine.bodies == [body]


async def test_engine_that_calls_the_model_otherwise_is_asked_and_answers_under_both_names(house: House) -> None:
    far = candidate(upstream_model="org/big", answer_model="big:fp8")
    await house.know(route("big", far), rewrite_model=True)
    house.engine.then(whole({**ANSWER, "model": "org/big"}), stream(role(model="org/big"), token("a", model="org/big")))
    whole_answer = await house.chat(model="big")
    assert whole_answer.json() == {**ANSWER, "model": "big:fp8"}
    streamed = await house.chat(model="big", stream=True)
    assert streamed.content == role(model="big:fp8") + token("a", model="big:fp8")
    assert [json.loads(body)["model"] for body in house.engine.bodies] == ["org/big", "org/big"]


@pytest.mark.parametrize(
    ("path", "task", "asked"),
    [
        ("/v1/completions", "generate", "/v1/completions"),
        ("/tokenize", "generate", "/tokenize"),
        ("/detokenize", "embed", "/detokenize"),
        ("/v1/embeddings", "embed", "/v1/embeddings"),
        ("/v1/score", "score", "/v1/score"),
        ("/score", "score", "/v1/score"),
        ("/rerank", "score", "/v1/rerank"),
    ],
)
async def test_every_endpoint_reaches_its_engine(house: House, path: str, task: str, asked: str) -> None:
    await house.know(route("other", candidate(), task=task))
    response = await house.client.post(path, json={"model": "other", "input": "x"})
    assert response.status_code == 200
    assert house.engine.requests[0].target == f"POST {asked} HTTP/1.1"


async def test_long_answer_passes_through_with_its_length(house: House) -> None:
    body = b'{"data":"' + b"x" * 3_000_000 + b'"}'
    house.engine.then(whole(body))
    response = await house.chat()
    assert response.content == body
    assert response.headers["content-length"] == str(len(body))


async def test_answer_until_close_is_whole(house: House) -> None:
    async def script(connection: EngineConnection) -> None:
        connection.send(head(200, (b"content-type", b"application/json")), json.dumps(ANSWER).encode())
        connection.close()

    house.engine.then(script)
    assert (await house.chat()).json() == ANSWER
    assert (await house.control.record()).output_tokens == 3


async def test_requests_that_come_at_once_on_one_connection_are_answered_in_their_order(house: House) -> None:
    async def whichever(connection: EngineConnection) -> None:
        await whole({"n": connection.json["n"]})(connection)

    house.engine.then(whichever)
    bodies = [json.dumps({"model": "demo", "messages": [], "n": number}).encode() for number in (1, 2, 3)]
    lines = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n"
    reader, writer = await house.dial()
    first, second, third = ((lines % len(body), body) for body in bodies)
    writer.write(b"\r\n".join([*first]) + b"\r\n".join([*second]) + third[0] + b"connection: close\r\n\r\n" + third[1])
    everything = await reader.read()
    writer.close()
    answers = everything.split(b"HTTP/1.1 ")[1:]
    assert [answer.partition(b"\r\n\r\n")[2] for answer in answers] == [b'{"n": 1}', b'{"n": 2}', b'{"n": 3}']
    assert [b"connection: close" in answer for answer in answers] == [False, False, True]


async def test_head_is_refused_without_a_body_and_the_connection_stays_usable(house: House) -> None:
    response = await house.client.head("/v1/chat/completions")
    assert (response.status_code, response.content) == (405, b"")
    assert (await house.chat()).status_code == 200


async def test_clients_key_stays_here_and_the_replicas_own_goes_out(house: House) -> None:
    headers = {"authorization": "Bearer sk-client", "x-internal": "1", "cookie": "a=b"}
    await house.client.post("/v1/chat/completions", json={"model": "demo", "messages": []}, headers=headers)
    seen = house.engine.requests[0].headers
    assert seen["authorization"] == "Bearer engine-secret"
    assert "x-internal" not in seen
    assert "cookie" not in seen


async def test_only_safe_headers_of_the_engine_reach_the_client(house: House) -> None:
    named = (b"connection", b"Keep-Alive, Cache-Control")
    inner = [(b"server", b"uvicorn"), (b"x-secret", b"1"), (b"cache-control", b"no-store"), (b"set-cookie", b"a=b")]
    house.engine.then(whole(ANSWER, 200, *inner), whole(ANSWER, 200, named, *inner))
    first, second = await house.chat(), await house.chat()
    assert set(first.headers) == {
        "date", "content-type", "cache-control", "content-length", "x-request-id", "x-wattgate-engine"
    }  # fmt: skip
    assert "cache-control" not in second.headers


@pytest.mark.parametrize(("sent", "kept"), [("a.B-9_c", True), ("x" * 128, True), ("x" * 129, False), ("a b", False)])
async def test_request_id_is_kept_if_it_is_sane_and_echoed(house: House, sent: str, kept: bool) -> None:
    body = {"model": "demo", "messages": []}
    response = await house.client.post("/v1/chat/completions", json=body, headers={"x-request-id": sent})
    echoed = response.headers["x-request-id"]
    assert (echoed == sent) is kept
    assert (await house.control.record()).id == echoed


async def test_request_id_that_is_running_already_is_not_given_twice_but_again_later(house: House) -> None:
    go_on = asyncio.Event()

    async def script(connection: EngineConnection) -> None:
        await go_on.wait()
        await whole(ANSWER)(connection)

    async def ask(request_id: str) -> str:
        body = {"model": "demo", "messages": MESSAGES}
        headers = {"x-request-id": request_id}
        response = await house.client.post("/v1/chat/completions", json=body, headers=headers)
        return response.headers["x-request-id"]

    house.engine.then(script, whole(ANSWER))
    first = asyncio.ensure_future(ask("b00t-1"))
    await house.engine.request()
    second = await ask("b00t-1")
    assert second == "b00t-2"  # the gateway's own first one was what the client had chosen
    go_on.set()
    assert await first == "b00t-1"
    await house.control.record(2)
    assert await ask("b00t-1") == "b00t-1"
    await house.control.record(3)
    assert [one.id for one in house.control.records] == [second, "b00t-1", "b00t-1"]
