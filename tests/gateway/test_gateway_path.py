"""The path of a request, end to end on real sockets."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from tests.fakes.scripted_engine import DONE, SSE, EngineConnection, chunked, head, role, stream, token, usage, whole
from tests.gateway.house import House, candidate, open_house, replica, route, until

pytestmark = pytest.mark.anyio

ANSWER = {
    "id": "c-1",
    "object": "chat.completion",
    "model": "demo:bf16",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 9, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 4}},
}
MESSAGES = [{"role": "user", "content": "Hi"}]


def problem(response: httpx.Response) -> dict[str, Any]:
    """The error, which must have OpenAI's form."""
    assert response.headers["content-type"] == "application/json"
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return dict(error)


# --- what goes well ---------------------------------------------------------------------------------------------------


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
    lines = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n"
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


# --- headers ----------------------------------------------------------------------------------------------------------


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


# --- what the client does wrong ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "status", "param", "says"),
    [
        (b'{"model": "demo", ', 400, None, "not valid JSON"),
        (b"[]", 400, None, "one JSON object"),
        (b'{"messages": []}', 400, "model", "`model` is missing"),
        (b'{"model": "", "messages": []}', 400, "model", "`model` is empty"),
        (b'{"model": "demo", "messages": {}}', 400, "messages", "wrong type"),
        (b'{"model": "demo:bf17", "messages": []}', 404, "model", "Did you mean `demo:bf16`"),
    ],
)
async def test_wrong_request_is_refused_before_any_engine_hears_of_it(
    house: House, body: bytes, status: int, param: str | None, says: str
) -> None:
    response = await house.client.post("/v1/chat/completions", content=body)
    error = problem(response)
    assert (response.status_code, error["type"], error["param"]) == (status, "invalid_request_error", param)
    assert says in error["message"]
    assert house.engine.requests == []
    record = await house.control.record()
    assert (record.outcome, record.status, record.engine) == ("client_error", status, None)


async def test_model_of_another_task_is_refused(house: House) -> None:
    await house.know(route("vectors", candidate(), task="embed"))
    response = await house.chat(model="vectors")
    assert response.status_code == 400
    assert "/v1/embeddings" in problem(response)["message"]


@pytest.mark.parametrize("verb", ["GET", "PUT", "DELETE"])
async def test_wrong_verb_is_refused(house: House, verb: str) -> None:
    response = await house.client.request(verb, "/v1/chat/completions")
    assert (response.status_code, problem(response)["code"]) == (405, "method_not_allowed")


@pytest.mark.parametrize("announced", [True, False])
async def test_body_that_is_too_long_is_refused(announced: bool) -> None:
    async with open_house(max_body_bytes=2048) as house:
        await house.know()

        async def pieces() -> Any:
            for _ in range(4):
                yield b"x" * 1000

        response = await house.client.post("/v1/chat/completions", content=b"x" * 4000 if announced else pieces())
        assert (response.status_code, problem(response)["code"]) == (413, "body_too_large")
        assert (await house.control.record()).outcome == "client_error"
        assert (await house.chat()).status_code == 200


async def test_body_is_refused_by_its_announced_length_before_it_is_sent() -> None:
    async with open_house(max_body_bytes=2048) as house:
        reader, writer = await house.dial()
        writer.write(
            b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 4000\r\nexpect: 100-continue\r\n\r\n"
        )
        assert (await reader.readline()).startswith(b"HTTP/1.1 413")
        writer.close()


# --- load -------------------------------------------------------------------------------------------------------------


async def test_full_queue_is_a_429_with_a_time_to_come_back() -> None:
    async with open_house(max_in_flight=1, max_queue=0) as house:
        await house.know()
        release = asyncio.Event()

        async def script(connection: EngineConnection) -> None:
            await release.wait()
            await whole(ANSWER)(connection)

        house.engine.then(script)
        first = asyncio.ensure_future(house.chat())
        await house.engine.request()
        refused = await house.chat()
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        assert problem(refused)["type"] == "rate_limit_error"
        release.set()
        assert (await first).status_code == 200
        assert (await house.control.record()).outcome == "rejected"
        assert house.control.batches[-1].gauges.rejections["queue_full"] == 1


async def test_slot_is_held_until_the_last_byte() -> None:
    async with open_house(max_in_flight=1, max_queue=5) as house:
        await house.know()
        finish = asyncio.Event()

        async def script(connection: EngineConnection) -> None:
            connection.stream_head()
            connection.event(role(), token("a"))
            await finish.wait()
            connection.event(DONE)
            connection.send(chunked(b""))

        house.engine.then(script, whole(ANSWER))
        body = {"model": "demo", "messages": MESSAGES, "stream": True}
        async with house.client.stream("POST", "/v1/chat/completions", json=body) as response:
            second = asyncio.ensure_future(house.chat())
            await until(lambda: house.worker.admission.queued == 1)
            assert len(house.engine.requests) == 1
            finish.set()
            await response.aread()
        assert (await second).status_code == 200
        assert (await house.control.record(2)).queue_s > 0


async def test_no_healthy_replica_is_a_503_that_names_the_engines(house: House) -> None:
    await house.know(healthy=False)
    response = await house.chat()
    assert (response.status_code, "retry-after" in response.headers) == (503, True)
    assert "engine-a" in problem(response)["message"]
    assert (await house.control.record()).outcome == "rejected"


async def test_before_the_first_table_everything_is_a_503() -> None:
    async with open_house() as house:
        assert (await house.chat()).status_code == 503


# --- what engines do wrong --------------------------------------------------------------------------------------------


async def test_openai_error_of_the_engine_passes_with_its_retry_after(house: House) -> None:
    error = {"error": {"message": "full", "type": "x", "param": None, "code": 429, "extra": 1}}
    house.engine.then(whole(error, 429, (b"retry-after", b"7")))
    response = await house.chat()
    assert (response.status_code, response.headers["retry-after"], response.json()) == (429, "7", error)
    assert len(house.engine.requests) == 1
    assert (await house.control.record()).outcome == "rejected"


@pytest.mark.parametrize(
    ("content", "status", "says", "outcome"),
    [
        ({"detail": "Not Found"}, 404, "Not Found", "client_error"),
        ({"object": "error", "message": "too long", "code": 400}, 400, "too long", "client_error"),
        ({"detail": [{"loc": ["body"]}]}, 422, '[{"loc":["body"]}]', "client_error"),
        (b"<html>oops</html>", 500, "answered 500 without saying why", "upstream_error"),
        (b"", 503, "answered 503", "upstream_error"),
    ],
)
async def test_other_errors_of_the_engine_are_put_into_openais_form(
    house: House, content: Any, status: int, says: str, outcome: str
) -> None:
    house.engine.then(whole(content, status, (b"content-type", b"text/html")))
    response = await house.chat(stream=True)
    assert response.status_code == status
    assert says in problem(response)["message"]
    assert (await house.control.record()).outcome == outcome


@pytest.mark.parametrize(
    ("status", "says"), [(302, "redirect"), (401, "refused the gateway's key"), (403, "key"), (999, "999")]
)
async def test_engine_that_redirects_refuses_our_key_or_says_nonsense_is_a_failed_engine(
    house: House, status: int, says: str
) -> None:
    house.engine.then(whole({}, status, (b"location", b"http://127.0.0.1:1/")))
    response = await house.chat()
    assert (response.status_code, problem(response)["type"]) == (502, "upstream_error")
    assert says in problem(response)["message"]


@pytest.mark.parametrize("streamed", [True, False])
async def test_engine_that_dies_before_it_answers_is_a_502(house: House, streamed: bool) -> None:
    async def script(connection: EngineConnection) -> None:
        connection.reset()

    house.engine.then(script)
    response = await house.chat(stream=streamed)
    assert (response.status_code, problem(response)["code"]) == (502, "engine_failed")
    assert (await house.control.record()).outcome == "upstream_error"


async def test_engine_that_nobody_reaches_is_a_502_with_a_time_to_come_back(house: House) -> None:
    await house.know(replicas=[replica(1)])
    response = await house.chat()
    assert (response.status_code, response.headers["retry-after"]) == (502, "1")


async def test_engine_that_is_too_slow_is_a_504() -> None:
    async def script(connection: EngineConnection) -> None:
        await connection.until_gone()

    async with open_house(first_byte_timeout_s=0.05) as house:
        await house.know()
        house.engine.then(script)
        response = await house.chat()
        assert (response.status_code, problem(response)["code"]) == (504, "engine_timeout")
        assert (await house.control.record()).outcome == "upstream_timeout"


async def test_engine_that_dies_in_a_whole_answer_is_a_502(house: House) -> None:
    async def script(connection: EngineConnection) -> None:
        connection.send(head(200, (b"content-length", b"100")), b'{"id":')
        connection.close()

    house.engine.then(script)
    response = await house.chat()
    assert (response.status_code, problem(response)["code"]) == (502, "engine_failed")


@pytest.mark.parametrize("rest", [b"", token("b")[:30]], ids=["between events", "within an event"])
async def test_engine_that_dies_in_a_stream_ends_it_with_an_error_event_and_the_connection(
    house: House, rest: bytes
) -> None:
    async def script(connection: EngineConnection) -> None:
        connection.stream_head()
        connection.event(role(), token("a"), *([rest] if rest else []))
        connection.close()

    house.engine.then(script)
    reader, writer = await house.dial()
    body = json.dumps({"model": "demo", "messages": MESSAGES, "stream": True}).encode()
    writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
    everything = await reader.read()
    writer.close()
    assert b"[DONE]" not in everything
    last = everything.split(b"data: ")[-1].partition(b"\n\n")[0]
    assert json.loads(last)["error"]["type"] == "upstream_error"
    assert everything.endswith(b"0\r\n\r\n")
    assert token("b")[:20] not in everything.partition(token("a"))[2]
    record = await house.control.record()
    assert (record.outcome, record.status, record.token_chunks, record.output_tokens) == ("truncated", 200, 1, None)


async def test_engine_that_dies_in_a_long_answer_leaves_it_visibly_incomplete(house: House) -> None:
    async def script(connection: EngineConnection) -> None:
        connection.send(head(200, (b"content-length", b"9000000")), b"x" * 3_000_000)
        connection.close()

    house.engine.then(script)
    with pytest.raises(httpx.RemoteProtocolError):
        await house.chat()
    assert (await house.control.record()).outcome == "truncated"


async def test_error_that_the_engine_puts_into_its_stream_counts_as_one(house: House) -> None:
    failed = b'data: {"error": {"message": "out of memory", "type": "x", "code": 500}}\n\n'
    house.engine.then(stream(role(), token("a"), failed, DONE))
    response = await house.chat(stream=True)
    assert failed in response.content
    assert (await house.control.record()).outcome == "truncated"


async def test_defect_of_the_gateway_is_a_500_that_tells_nothing_and_leaves_a_record(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken:
        def tenant_of(self, headers: object) -> str:
            raise ZeroDivisionError("secret")

    house.worker.authenticator = Broken()
    response = await house.chat()
    assert (response.status_code, problem(response)["type"]) == (500, "internal_error")
    assert "secret" not in response.text
    assert "ZeroDivisionError" in caplog.text
    assert (await house.control.record()).outcome == "internal_error"
