"""A client that leaves frees the engine at once, whatever the request is waiting for."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable

import pytest

from tests.fakes.scripted_engine import EngineConnection, chunked, head, role, token, whole
from tests.gateway.house import House, open_house, standing_still, until

pytestmark = pytest.mark.anyio


async def silent(connection: EngineConnection) -> None:
    await connection.until_gone()


async def head_only(connection: EngineConnection) -> None:
    connection.stream_head()
    await connection.until_gone()


async def role_only(connection: EngineConnection) -> None:
    connection.stream_head()
    connection.event(role())
    await connection.until_gone()


async def one_token(connection: EngineConnection) -> None:
    connection.stream_head()
    connection.event(role(), token("a"))
    await connection.until_gone()


async def half_an_answer(connection: EngineConnection) -> None:
    connection.send(head(200, (b"content-length", b"100")), b"{")
    await connection.until_gone()


def request(*, stream: bool, padding: int = 0) -> bytes:
    content = {"model": "demo:bf16", "messages": [], "stream": stream, "x": "y" * padding}
    body = json.dumps(content).encode()
    return b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


@pytest.mark.parametrize("padding", [0, 300_000], ids=["small body", "large body"])
@pytest.mark.parametrize(
    ("script", "stream", "until", "when", "status"),
    [
        (silent, True, None, "before_first_token", 499),
        (silent, False, None, "before_first_token", 499),
        (half_an_answer, False, None, "before_first_token", 499),
        (head_only, True, b"\r\n\r\n", "before_first_token", 200),
        (role_only, True, b"assistant", "before_first_token", 200),
        (one_token, True, b'"content":"a"', "streaming", 200),
    ],
)
async def test_client_that_leaves_stops_the_engine(
    house: House, script: Callable[..., None], stream: bool, until: bytes | None, when: str, status: int, padding: int
) -> None:
    house.engine.then(script)
    reader, writer = await house.dial()
    writer.write(request(stream=stream, padding=padding))
    connection = await house.engine.request()
    if until is not None:
        await reader.readuntil(until)
    writer.close()
    await connection.until_gone()
    record = await house.control.record()
    assert (record.outcome, record.cancelled_when, record.status) == ("cancelled", when, status)
    assert house.worker.router.outstanding == {}
    await house.know()


async def test_client_that_leaves_the_queue_frees_its_place() -> None:
    async with open_house(max_in_flight=1) as house:
        await house.know()
        house.engine.then(silent)
        _, first = await house.dial()
        first.write(request(stream=True))
        engine = await house.engine.request()
        _, second = await house.dial()
        second.write(request(stream=True))
        await until(lambda: house.worker.admission.queued == 1)
        second.close()
        record = await house.control.record()
        assert (record.outcome, record.cancelled_when, record.engine) == ("cancelled", "queued", None)
        assert house.worker.admission.queued == 0
        first.close()
        await engine.until_gone()
        house.engine.then(whole({}))
        assert (await house.chat()).status_code == 200


async def test_client_that_leaves_with_half_a_body_sent_is_recorded(house: House) -> None:
    _, writer = await house.dial()
    writer.write(request(stream=False)[:-5])
    await writer.drain()
    writer.close()
    record = await house.control.record()
    assert (record.outcome, record.cancelled_when, record.status) == ("cancelled", "queued", 499)
    assert house.engine.requests == []


async def test_client_that_stops_reading_makes_the_engine_wait_and_may_still_leave(house: House) -> None:
    size = 64 * 2**20

    async def endless(connection: EngineConnection) -> None:
        connection.stream_head()
        event = token("x" * 60_000)
        connection.send(*[chunked(event)] * (size // len(event)))
        await connection.until_gone()

    house.engine.then(endless)
    _, writer = await house.dial()
    writer.write(request(stream=True))
    connection = await house.engine.request()
    await until(standing_still(connection.transport.get_write_buffer_size))
    assert connection.transport.get_write_buffer_size() > size // 2
    writer.transport.abort()
    await connection.until_gone()
    record = await house.control.record()
    assert (record.outcome, record.cancelled_when) == ("cancelled", "streaming")


async def test_client_that_never_reads_again_is_cut_off_and_frees_its_slot_and_its_engine() -> None:
    async def endless(connection: EngineConnection) -> None:
        connection.stream_head()
        connection.send(*[chunked(token("x" * 60_000))] * 1000)
        await connection.until_gone()

    async with open_house(max_in_flight=1, idle_timeout_s=0.5) as house:
        await house.know()
        house.engine.then(endless, whole({}))
        _, writer = await house.dial()
        writer.write(request(stream=True))
        try:
            connection = await house.engine.request()
            await connection.until_gone()
            record = await house.control.record()
            assert (record.outcome, record.cancelled_when) == ("cancelled", "streaming")
            assert (await house.chat()).status_code == 200
        finally:
            writer.transport.abort()


async def test_body_that_does_not_come_is_refused_and_its_connection_closed() -> None:
    async with open_house(idle_timeout_s=0.05) as house:
        await house.know()
        reader, writer = await house.dial()
        writer.write(request(stream=False)[:-5])
        async with asyncio.timeout(10):
            answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"connection: close" in answer
        assert b"Nothing came of the body" in answer
        record = await house.control.record()
        assert (record.outcome, record.status) == ("client_error", 408)
        assert house.engine.requests == []
        writer.close()


@pytest.fixture
async def two_houses() -> AsyncIterator[tuple[House, House]]:
    async with open_house() as one, open_house() as other:
        await one.know()
        await other.know()
        yield one, other


async def test_two_gateways_in_a_process_know_nothing_of_one_another(two_houses: tuple[House, House]) -> None:
    one, other = two_houses
    await one.chat()
    await one.control.record()
    assert one.engine.requests
    assert not other.engine.requests
    assert not other.control.records


@pytest.mark.parametrize("behind", [1, 5])
@pytest.mark.parametrize("padding", [0, 10_000], ids=["small bodies", "large bodies"])
async def test_client_that_leaves_while_requests_wait_behind_the_one_that_runs_stops_the_engine(
    house: House, behind: int, padding: int
) -> None:
    house.engine.then(silent)
    _, writer = await house.dial()
    writer.write(request(stream=True))
    connection = await house.engine.request()
    for _ in range(behind):
        writer.write(request(stream=True, padding=padding))
    await writer.drain()
    writer.close()
    await connection.until_gone()
    await house.control.record(1 + behind)
    seen = sorted((record.outcome, record.cancelled_when) for record in house.control.records)
    assert seen == [("cancelled", "before_first_token"), *[("cancelled", "queued")] * behind]
    assert len(house.engine.requests) == 1


async def test_client_that_leaves_while_something_else_than_inference_waits_stops_the_engine(house: House) -> None:
    house.engine.then(silent)
    _, writer = await house.dial()
    writer.write(request(stream=True) + b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
    connection = await house.engine.request()
    writer.close()
    await connection.until_gone()
    assert (await house.control.record()).outcome == "cancelled"


async def test_requests_that_wait_behind_the_one_that_runs_are_read_up_to_a_bound_and_all_answered(
    house: House,
) -> None:
    goes_on, count, one = asyncio.Event(), 400, request(stream=False, padding=5000)

    async def late(connection: EngineConnection) -> None:
        await goes_on.wait()
        await whole({"object": "late"})(connection)

    house.engine.then(late, whole({"object": "scripted"}))
    reader, writer = await house.dial()
    writer.write(one * count)
    await house.engine.request()
    (client,) = house.server.server_state.connections
    await until(standing_still(lambda: len(client.pipeline)))  # type: ignore[union-attr]
    assert 1 <= len(client.pipeline) < 120  # type: ignore[union-attr]  # of which one read may bring fifty
    goes_on.set()
    most = 0
    for number in range(count):
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        assert await reader.readuntil(b"}") == (b'{"object": "late"}' if number == 0 else b'{"object": "scripted"}')
        most = max(most, len(client.pipeline))  # type: ignore[union-attr]
    assert most < 120
    writer.close()
