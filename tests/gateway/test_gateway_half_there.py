"""What has begun and goes on, or does not: bounds on heads, bodies, trailers and on waiting for them."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.fakes.scripted_engine import EngineConnection, whole
from tests.gateway.house import ANSWER, House, open_house, until
from tests.gateway.raw import CHAT, dialled, post

pytestmark = pytest.mark.anyio

HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n"


@pytest.fixture(autouse=True)
def watchful(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slow clients are looked for more often, and waited for less long."""
    monkeypatch.setattr("server.gateway.listener._LOOK_EVERY", 0.01)
    monkeypatch.setattr("server.gateway.guarded._LINGER_S", 0.05)


def long_chat(size: int) -> bytes:
    return json.dumps({"model": "demo:bf16", "messages": [{"role": "user", "content": "x" * size}]}).encode()


async def test_body_is_no_part_of_the_next_requests_head(house: House) -> None:
    async with dialled(house) as wire:
        assert (await wire.ask(post(body=long_chat(200_000)))).status == 200
        request = post()
        wire.send(request[:30])
        await wire.writer.drain()
        await until(lambda: house.worker.visits.running == 0)
        assert (await wire.ask(request[30:])).status == 200


@pytest.mark.parametrize(
    "behind", [b"\x00garbage\r\n\r\n", b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n"]
)
async def test_what_is_wrong_behind_a_running_request_does_not_end_it(house: House, behind: bytes) -> None:
    go_on = asyncio.Event()

    async def slowly(connection: EngineConnection) -> None:
        await go_on.wait()
        await whole(ANSWER)(connection)

    house.engine.then(slowly)
    async with dialled(house) as wire:
        wire.send(post())
        await house.engine.request()
        wire.send(behind)
        looks = iter(range(40))
        await until(lambda: next(looks, None) is None)  # time enough to be taken for one that lingers
        go_on.set()
        assert (await wire.answer()).status == 200
        assert (await house.control.record()).outcome == "ok"


async def test_wish_for_http2_is_ignored_and_the_body_is_read(house: House) -> None:
    upgrade = (b"connection: Upgrade, HTTP2-Settings", b"upgrade: h2c", b"http2-settings: AAMAAABkAAQAoAAAAAIAAAAA")
    async with dialled(house) as wire:
        whole_read = await wire.ask(post(*upgrade))
        request = post(*upgrade)
        wire.send(request[:-20])
        await wire.writer.drain()
        cut = await wire.ask(request[-20:])
    assert (whole_read.status, cut.status) == (200, 200)
    assert [one.body for one in house.engine.requests] == [CHAT, CHAT]
    assert "connection" not in whole_read.headers


@pytest.mark.parametrize("line", [b"x: %s\r\n" % (b"y" * 1000), b"y" * 1000], ids=["many", "one without end"])
async def test_trailers_are_bounded(line: bytes) -> None:
    async with open_house(max_header_bytes=4096) as house:
        await house.know()
        async with dialled(house) as wire:
            wire.send(HEAD, b"transfer-encoding: chunked\r\n\r\n0\r\n")
            for _ in range(100):
                wire.send(line)
            assert (await wire.answer()).status == 431
        assert house.engine.requests == []


async def test_bodies_whose_end_has_not_come_are_bounded_together() -> None:
    async with open_house(max_in_flight_bytes=2**20, max_body_bytes=2**20) as house:
        await house.know()
        async with dialled(house) as one, dialled(house) as other:
            for wire in (one, other):
                wire.send(HEAD, b"content-length: 1000000\r\n\r\n", b"x" * 700_000)
                await wire.writer.drain()
            answers = {asyncio.ensure_future(wire.answer()) for wire in (one, other)}
            done, waiting = await asyncio.wait(answers, return_when=asyncio.FIRST_COMPLETED)
            refused = done.pop().result()
            assert (refused.status, refused.headers["retry-after"]) == (429, "1")
            for task in waiting:
                task.cancel()
        assert (await house.chat()).status_code == 200
        listener = house.server.config.http_protocol_class.listener  # type: ignore[union-attr]
        await until(lambda: listener.half_bytes == 0)


async def test_body_that_drips_is_refused_though_it_never_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_house(idle_timeout_s=0.2) as house:
        await house.know()
        async with dialled(house) as wire:
            wire.send(HEAD, b"content-length: 100000\r\n\r\n")

            async def drip() -> None:
                while not wire.writer.is_closing():
                    wire.send(b"x")
                    await asyncio.sleep(0.01)

            dripping = asyncio.ensure_future(drip())
            assert (await wire.answer()).status == 408
            dripping.cancel()


async def test_length_of_thousands_of_digits_is_too_long(house: House) -> None:
    async with dialled(house) as wire:
        answer = await wire.ask(HEAD + b"content-length: " + b"0" * 4000 + b"1" * 10 + b"\r\n\r\n")
    assert answer.status in {400, 413}


async def test_one_connection_that_cannot_be_looked_after_is_no_harm_to_the_others(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.gateway.guarded.KEEP_ALIVE_S", 0.05)
    async with dialled(house) as broken, dialled(house) as idle:
        assert (await broken.ask(post())).status == 200
        assert (await idle.ask(post())).status == 200
        connections = list(house.server.server_state.connections)
        monkeypatch.setattr(connections[0], "_touched_at", None)
        monkeypatch.setattr(connections[1], "_touched_at", 0.0)
        closed = [asyncio.ensure_future(wire.closed()) for wire in (broken, idle)]
        done, waiting = await asyncio.wait(closed, return_when=asyncio.FIRST_COMPLETED)
        assert [task.result() for task in done] == [True]
        for task in waiting:
            task.cancel()
