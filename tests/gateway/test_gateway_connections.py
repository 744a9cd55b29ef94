"""Many requests on one connection, and its end, over real sockets."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.fakes.scripted_engine import stream, token, whole
from tests.gateway.house import ANSWER, House, open_house, until
from tests.gateway.raw import CHAT, dialled, post

pytestmark = pytest.mark.anyio

HEALTH = b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n"


@pytest.fixture(autouse=True)
def watchful(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slow clients are looked for more often than every second."""
    monkeypatch.setattr("server.gateway.listener._LOOK_EVERY", 0.02)


# --- one after the other ----------------------------------------------------------------------------------------------


async def test_pipelined_requests_of_both_ways_are_answered_in_order(house: House) -> None:
    house.engine.then(whole({**ANSWER, "n": 1}), stream(token("two"), b"data: [DONE]\n\n"), whole({**ANSWER, "n": 3}))
    streamed = post(body=CHAT[:-1] + b',"stream":true}')
    async with dialled(house) as wire:
        wire.send(HEALTH, post(), HEALTH, streamed, HEALTH, HEALTH, post(), post(body=b"{"), HEALTH)
        bodies = [(await wire.answer()).body for _ in range(9)]
    health = b'{"status":"ok"}'
    assert [body for index, body in enumerate(bodies) if index in {0, 2, 4, 5, 8}] == [health] * 5
    assert [json.loads(bodies[index])["n"] for index in (1, 6)] == [1, 3]
    assert b"two" in bodies[3]
    assert b"not valid JSON" in bodies[7]


async def test_many_pipelined_requests_are_all_answered(house: House) -> None:
    async with dialled(house) as wire:
        wire.send(*([post()] * 300))
        assert {(await wire.answer()).status for _ in range(300)} == {200}
    await until(lambda: len(house.control.records) == 300)


@pytest.mark.parametrize("garbage", [b"\x00\x01garbage\r\n\r\n", b"GET / HTTP/9\r\n\r\n", b"\x16\x03\x01\x02\x00"])
async def test_garbage_after_a_good_request_does_not_take_its_answer(house: House, garbage: bytes) -> None:
    async with dialled(house) as wire:
        assert (await wire.ask(post() + garbage)).status == 200
        rest = await wire.reader.read()
        assert rest == b"" or rest.startswith(b"HTTP/1.1 400 ")
    assert len(house.engine.requests) == 1


async def test_client_that_leaves_amid_pipelined_requests_has_one_record_for_each(house: House) -> None:
    never = asyncio.Event()

    async def script(connection: object) -> None:
        await never.wait()

    house.engine.then(whole(ANSWER), script)
    async with dialled(house) as wire:
        wire.send(post(), post(), HEALTH, post(), post()[:-3])
        assert (await wire.answer()).status == 200
        await house.engine.request(2)
    await until(lambda: len(house.control.records) >= 4)
    await until(lambda: house.worker.admission.in_flight == 0)
    assert sorted(record.outcome for record in house.control.records) == ["cancelled"] * 3 + ["ok"]
    assert len({record.id for record in house.control.records}) == 4
    never.set()


# --- idle, and the end ------------------------------------------------------------------------------------------------


async def test_idle_connection_is_closed_after_its_time(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.gateway.guarded.KEEP_ALIVE_S", 0.05)
    async with dialled(house) as fresh, dialled(house) as used:
        assert (await used.ask(post())).status == 200
        assert await used.closed()
        assert await fresh.closed()


async def test_busy_connection_is_told_to_close_when_the_worker_drains(house: House) -> None:
    release = asyncio.Event()

    async def script(connection: object) -> None:
        await release.wait()
        await whole(ANSWER)(connection)  # type: ignore[arg-type]

    house.engine.then(script)
    async with dialled(house) as wire:
        wire.send(post())
        await house.engine.request()
        house.server.drain()
        release.set()
        answer = await wire.answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert await wire.closed()


@pytest.mark.parametrize("data", [post(), HEALTH])
async def test_idle_connection_may_ask_once_more_while_the_worker_drains(data: bytes) -> None:
    async with open_house(last_call=30.0) as house:
        await house.know()
        async with dialled(house) as wire:
            assert (await wire.ask(post())).status == 200
            house.server.drain()
            answer = await wire.ask(data)
            assert (answer.status, answer.headers["connection"]) == (200, "close")
            assert await wire.closed()


async def test_idle_connection_is_closed_after_the_last_call() -> None:
    async with open_house(last_call=0.05) as house:
        await house.know()
        async with dialled(house) as wire:
            assert (await wire.ask(post())).status == 200
            house.server.drain()
            assert await wire.closed()
