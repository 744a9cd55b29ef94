"""What the gateway refuses by itself: wrong requests, too many, nobody to serve them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.fakes.scripted_engine import DONE, EngineConnection, chunked, role, token, whole
from tests.gateway.house import ANSWER, MESSAGES, House, candidate, open_house, problem, route, until

pytestmark = pytest.mark.anyio


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
            b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 4000\r\nexpect: 100-continue\r\n\r\n"
        )
        assert (await reader.readline()).startswith(b"HTTP/1.1 413")
        writer.close()


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
