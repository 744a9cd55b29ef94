"""What clients see when engines refuse, break or die."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.fakes.scripted_engine import DONE, EngineConnection, head, role, stream, token, whole
from tests.gateway.house import MESSAGES, House, open_house, problem, replica

pytestmark = pytest.mark.anyio


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

    async with open_house(whole_answer_timeout_s=0.05) as house:
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
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n"
    writer.write(head % len(body) + body)
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
        def holder_of(self, headers: object) -> str:
            raise ZeroDivisionError("secret")

    house.worker.keys = Broken()
    response = await house.chat()
    assert (response.status_code, problem(response)["type"]) == (500, "internal_error")
    assert "secret" not in response.text
    assert "ZeroDivisionError" in caplog.text
    assert (await house.control.record()).outcome == "internal_error"
