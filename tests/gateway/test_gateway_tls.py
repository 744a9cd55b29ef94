"""The gateway's own certificate."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.fakes.certificates import make_certificate
from tests.fakes.scripted_engine import DONE, stream, token, whole
from tests.gateway.house import ANSWER, House, open_house
from tests.gateway.raw import CHAT, Wire, chat, post

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
async def house(pair: tuple[Path, Path]) -> AsyncIterator[House]:
    certificate, key = pair
    async with open_house(tls_certificate=certificate, tls_key=key, max_body_bytes=1024, header_timeout_s=0.05) as one:
        await one.know()
        one.engine.then(whole(ANSWER))
        yield one


@pytest.fixture
async def wire(house: House, pair: tuple[Path, Path]) -> AsyncIterator[Wire]:
    trust = ssl.create_default_context(cafile=str(pair[0]))
    reader, writer = await asyncio.open_connection("127.0.0.1", house.port, ssl=trust)
    yield Wire(reader, writer)
    writer.transport.abort()


async def test_whole_answers_and_streams_come_over_tls(house: House, wire: Wire) -> None:
    assert (await wire.ask(post())).status == 200
    house.engine.then(stream(token("a"), token("b"), DONE))
    answer = await wire.ask(chat(stream=True))
    assert answer.body == token("a") + token("b") + DONE
    assert (await wire.ask(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")).status == 200


async def test_plain_http_on_the_tls_port_is_hung_up_on(house: House) -> None:
    with pytest.raises(httpx.HTTPError):
        await house.client.get("/health")


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (post()[:40], 408),
        (post(host=b"evil.example"), 400),
        (post(body=b"x" * 2000), 413),
        (b"\x00\r\n\r\n", 400),
    ],
)
async def test_refusal_over_tls_can_be_read_and_the_connection_is_closed(wire: Wire, data: bytes, status: int) -> None:
    assert (await wire.ask(data)).status == status
    assert await wire.closed()


async def test_client_that_still_sends_over_tls_can_read_why_it_was_refused(wire: Wire) -> None:
    wire.send(post(body=CHAT)[: -len(CHAT)].replace(b"content-length: %d" % len(CHAT), b"content-length: 8000000"))
    for _ in range(20):
        wire.send(b"x" * 100_000)
        await asyncio.sleep(0)
    assert (await wire.answer()).status == 413
