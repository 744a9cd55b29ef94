"""What clients may put on the wire, and what becomes of it, over real sockets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from tests.fakes.scripted_engine import stream, token, whole
from tests.gateway.house import ANSWER, House, open_house
from tests.gateway.raw import CHAT, Answer, dialled, post

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def watchful(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slow clients are looked for more often than every second."""
    monkeypatch.setattr("server.gateway.listener._LOOK_EVERY", 0.02)


@pytest.fixture
async def small() -> AsyncIterator[House]:
    """A house with narrow bounds."""
    async with open_house(max_body_bytes=1024, max_header_bytes=1024) as house:
        await house.know()
        house.engine.then(whole(ANSWER))
        yield house


def headless(*lines: bytes, body: bytes = b"") -> bytes:
    """A chat request with exactly these header lines."""
    return b"\r\n".join([b"POST /v1/chat/completions HTTP/1.1", *lines]) + b"\r\n\r\n" + body


async def refused(house: House, data: bytes, status: int, says: str) -> Answer:
    """The refusal of this request, after which the connection is closed and others are served."""
    async with dialled(house) as wire:
        answer = await wire.ask(data)
        assert answer.status == status, answer.body
        assert says in answer.error["message"]
        assert answer.headers["connection"] == "close"
        assert await wire.closed()
    assert house.engine.requests == []
    async with dialled(house) as wire:
        assert (await wire.ask(post())).status == 200
    return answer


# --- heads ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ([], "no `Host` header"),
        ([b"host: localhost", b"host: localhost"], "`host` is there more than once"),
        ([b"host: localhost", b"Host: evil.example"], "`host` is there more than once"),
        ([b"host: evil.example"], "is not a name of this gateway"),
        ([b"host: localhost.evil.example"], "is not a name of this gateway"),
        ([b"host:"], "is not a name of this gateway"),
        ([b"host: localhost", b"authorization: Bearer a", b"Authorization: Bearer b"], "`authorization` is there more"),
        ([b"host: localhost", b"x-api-key: a", b"X-Api-Key: b"], "`x-api-key` is there more"),
    ],
)
async def test_head_that_says_two_things_or_means_another_host_is_refused(
    house: House, lines: list[bytes], says: str
) -> None:
    await refused(house, headless(*lines, b"content-length: %d" % len(CHAT), body=CHAT), 400, says)


@pytest.mark.parametrize("host", [b"localhost", b"LOCALHOST:99", b"127.0.0.1:8080", b"[::1]", b"[::1]:8080"])
async def test_gateway_on_loopback_answers_to_the_loopback_names(house: House, host: bytes) -> None:
    async with dialled(house) as wire:
        assert (await wire.ask(post(host=host))).status == 200


async def test_allowed_hosts_are_the_only_ones() -> None:
    async with open_house(allowed_hosts=["llm.example.org"]) as house:
        await house.know()
        async with dialled(house) as wire:
            assert (await wire.ask(post(host=b"LLM.example.org:443"))).status == 200
            assert (await wire.ask(post(host=b"localhost"))).status == 400


@pytest.mark.parametrize("path", [b"/health", b"/v1/models"])
async def test_foreign_host_is_refused_on_every_path(house: House, path: bytes) -> None:
    async with dialled(house) as wire:
        answer = await wire.ask(b"GET %b HTTP/1.1\r\nhost: evil.example\r\n\r\n" % path)
        assert answer.status == 400


@pytest.mark.parametrize("pieces", [1, 40])
async def test_head_that_is_too_long_is_a_431(small: House, pieces: int) -> None:
    data = post(b"x-long: " + b"y" * 2000)
    async with dialled(small) as wire:
        size = len(data) // pieces
        for start in range(0, 1600, size):
            wire.send(data[start : start + size])
            await wire.writer.drain()
            await asyncio.sleep(0)
        answer = await wire.answer()
        assert (answer.status, answer.error["code"]) == (431, "headers_too_large")
        assert "max_header_bytes" in answer.error["message"]
        assert await wire.closed()


async def test_target_that_is_too_long_is_a_431(small: House) -> None:
    await refused(small, post(target=b"/v1/chat/completions?" + b"q" * 2000), 431, "max_header_bytes")


async def test_too_many_headers_are_a_431(house: House) -> None:
    await refused(house, post(*(b"x-%d: 1" % number for number in range(120))), 431, "100 headers")


async def test_short_head_with_a_long_body_in_one_read_passes() -> None:
    async with open_house(max_header_bytes=1024) as house:
        await house.know()
        body = CHAT[:-1] + b',"user":"%b"}' % (b"x" * 20_000)
        async with dialled(house) as wire:
            assert (await wire.ask(post(body=body))).status == 200
            assert (await wire.ask(post(body=body) + post(body=body))).status == 200
            assert (await wire.answer()).status == 200


async def test_half_a_head_is_cut_off() -> None:
    async with open_house(header_timeout_s=0.05) as house:
        await house.know()
        await refused(house, post()[:40], 408, "gateway.header_timeout_s")


async def test_half_a_second_head_is_cut_off_after_the_first_answer() -> None:
    async with open_house(header_timeout_s=0.05) as house:
        await house.know()
        async with dialled(house) as wire:
            assert (await wire.ask(post() + post()[:40])).status == 200
            assert (await wire.answer()).status == 408
            assert await wire.closed()


@pytest.mark.parametrize(
    "lines",
    [
        [b"transfer-encoding: chunked", b"content-length: 5"],
        [b"content-length: 5", b"transfer-encoding: chunked"],
        [b"content-length: 5", b"content-length: 5"],
        [b"content-length: 5", b"content-length: 6"],
        [b"content-length: 5, 5"],
        [b"content-length: +5"],
        [b"content-length: -5"],
        [b"content-length: 0x5"],
        [b"content-length: 99999999999999999999999999"],
        [b"transfer-encoding: identity"],
        [b"transfer-encoding: chunked, identity"],
        [b"transfer-encoding: xchunked"],
        [b"x y: 1"],
        [b"x : 1"],
        [b"x: a\x00b"],
        [b" folded: 1"],
        [b"no colon"],
    ],
)
async def test_ambiguous_framing_is_refused_and_what_follows_is_never_a_request(
    house: House, lines: list[bytes]
) -> None:
    smuggled = b"0\r\n\r\n" + post()
    async with dialled(house) as wire:
        answer = await wire.ask(headless(b"host: localhost", *lines, body=smuggled))
        assert answer.status in {400, 413}
        assert await wire.closed()
    assert house.engine.requests == []


# --- bodies -----------------------------------------------------------------------------------------------------------


async def test_body_that_stalls_is_cut_off() -> None:
    async with open_house(idle_timeout_s=0.05) as house:
        await house.know()
        await refused(house, post()[:-5], 408, "Nothing came of the body")
        await refuse_record(house, 408)


async def test_body_that_stalls_where_nobody_wants_it_does_not_hold_the_connection() -> None:
    async with open_house(idle_timeout_s=0.05) as house, dialled(house) as wire:
        assert (await wire.ask(post(target=b"/nowhere")[:-5])).status == 404
        assert await wire.closed()


async def refuse_record(house: House, status: int) -> None:
    record = await house.control.record()
    assert (record.outcome, record.status) == ("client_error", status)


@pytest.mark.parametrize("announced", [True, False])
async def test_client_that_sends_too_much_can_read_why(small: House, announced: bool) -> None:
    """Were the socket closed while bytes still come, its reset would destroy the answer in the client's kernel."""
    framing = b"content-length: 8000000" if announced else b"transfer-encoding: chunked"
    piece = b"x" * 100_000 if announced else b"186a0\r\n" + b"x" * 100_000 + b"\r\n"
    async with dialled(small) as wire:
        wire.send(headless(b"host: localhost", framing))
        for _ in range(20):
            wire.send(piece)
            await wire.writer.drain()
        answer = await wire.answer()
        assert (answer.status, answer.error["code"]) == (413, "body_too_large")
        assert await wire.closed()
    await refuse_record(small, 413)


async def test_body_of_the_greatest_length_passes(small: House) -> None:
    body = CHAT + b" " * (1024 - len(CHAT))
    async with dialled(small) as wire:
        assert (await wire.ask(post(body=body))).status == 200
        chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        answer = await wire.ask(headless(b"host: localhost", b"transfer-encoding: chunked", body=chunks))
        assert answer.status == 200
    assert small.engine.bodies == [body, body]


async def test_client_that_waits_for_a_go_ahead_gets_it(house: House) -> None:
    async with dialled(house) as wire:
        for _ in range(2):
            data = post(b"expect: 100-continue")
            assert (await wire.ask(data[: -len(CHAT)])).status == 100
            assert (await wire.ask(CHAT)).status == 200


async def test_go_ahead_waits_for_the_answers_before_it(house: House) -> None:
    release = asyncio.Event()

    async def script(connection: object) -> None:
        await release.wait()
        await whole(ANSWER)(connection)  # type: ignore[arg-type]

    house.engine.then(script)
    async with dialled(house) as wire:
        wire.send(post() + post(b"expect: 100-continue")[: -len(CHAT)])
        await house.engine.request()
        release.set()
        assert [(await wire.answer()).status for _ in range(2)] == [200, 100]
        assert (await wire.ask(CHAT)).status == 200


async def test_body_that_would_be_too_long_gets_no_go_ahead(small: House) -> None:
    await refused(small, post(b"expect: 100-continue", body=b"x" * 2000)[:-2000], 413, "max_body_bytes")


async def test_trailers_are_not_headers(house: House) -> None:
    chunks = b"%x;ext=1\r\n%b\r\n0\r\nauthorization: Bearer wrong\r\nx-api-key: wrong\r\nhost: evil\r\n\r\n" % (
        len(CHAT),
        CHAT,
    )
    data = headless(b"host: localhost", b"transfer-encoding: chunked", body=chunks)
    async with dialled(house) as wire:
        for _ in range(2):
            assert (await wire.ask(data)).status == 200
        assert (await wire.ask(post())).status == 200
    assert house.engine.bodies == [CHAT] * 3


# --- versions, methods, targets ---------------------------------------------------------------------------------------


async def test_http_1_0_gets_no_chunks_and_is_closed(house: House) -> None:
    house.engine.then(stream(token("a"), b"data: [DONE]\n\n"), whole(ANSWER))
    for body in (json.dumps({**json.loads(CHAT), "stream": True}).encode(), CHAT):
        async with dialled(house) as wire:
            wire.send(
                b"POST /v1/chat/completions HTTP/1.0\r\ncontent-length: %d\r\nconnection: keep-alive\r\n\r\n%b"
                % (len(body), body)
            )
            answer = await wire.answer()
            assert answer.status == 200
            assert "transfer-encoding" not in answer.headers
            assert answer.body.endswith((b"data: [DONE]\n\n", b"}"))
            assert await wire.closed()


@pytest.mark.parametrize("version", [b"2.0", b"1.2", b"0.9", b"3.1"])
async def test_other_versions_are_refused(house: House, version: bytes) -> None:
    await refused(house, post().replace(b"HTTP/1.1", b"HTTP/" + version), 400, "HTTP/1.1")


@pytest.mark.parametrize("method", [b"GET", b"PUT", b"OPTIONS", b"DELETE"])
async def test_other_methods_are_a_405_and_the_connection_stays(house: House, method: bytes) -> None:
    async with dialled(house) as wire:
        for _ in range(2):
            answer = await wire.ask(post(method=method))
            assert (answer.status, answer.error["code"]) == (405, "method_not_allowed")
        assert (await wire.ask(post())).status == 200


async def test_answer_to_head_has_no_body(house: House) -> None:
    async with dialled(house) as wire:
        wire.send(post(method=b"HEAD", body=b""))
        answer = await wire.answer(bodiless=True)
        assert answer.status == 405
        assert int(answer.headers["content-length"]) > 0
        assert (await wire.ask(post())).status == 200


@pytest.mark.parametrize(
    "target",
    [
        b"/v1/chat/completions?x=1",
        b"/v1/chat/completions?",
        b"/v1/chat/completions#part",
        b"/v1/chat%2Fcompletions",
        b"/v1/%63hat/completions",
        b"/%76%31/chat/completions",
        b"http://localhost/v1/chat/completions",
        b"http://evil.example/v1/chat/completions",
    ],
)
async def test_every_spelling_of_a_path_is_the_same_endpoint(house: House, target: bytes) -> None:
    async with dialled(house) as wire:
        assert (await wire.ask(post(target=target))).status == 200
    assert (await house.control.record()).endpoint == "chat"


@pytest.mark.parametrize(
    "target",
    [
        b"//v1/chat/completions",
        b"/v1/chat/completions/",
        b"/v1/chat/../chat/completions",
        b"/V1/chat/completions",
        b"/v1/chat%252Fcompletions",
        b"/v1/chat/completions%00",
        b"/v1/models/%FF",
        b"/v1/models/\xc3\xa4",
        b"http://localhost",
        b"http://localhost?/v1/chat/completions",
        b"localhost:80",
        b"*",
    ],
)
async def test_other_paths_are_no_endpoint(house: House, target: bytes) -> None:
    async with dialled(house) as wire:
        assert (await wire.ask(post(target=target))).status in {400, 404, 405}
    assert house.engine.requests == []


async def test_request_behind_one_that_was_refused_is_not_served(small: House) -> None:
    async with dialled(small) as wire:
        too_long = post(body=b"x" * 2000)
        assert (await wire.ask(too_long + post())).status == 413
        assert await wire.closed()
    assert small.engine.requests == []
    assert len(small.control.records) <= 1
