"""Broken bytes from either side: an answer or an end every time, nothing leaks, and the next one is served."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from random import Random

import pytest

from tests.fakes.mutations import mutated, pieces_of
from tests.fakes.scripted_engine import whole
from tests.gateway.house import ANSWER, House, open_house, until
from tests.gateway.raw import CHAT, chat, dialled, post

pytestmark = pytest.mark.anyio

BOUND_S = 20.0
AT_ONCE = 40
TIMES = int(os.environ.get("WATTGATE_FUZZ_TIMES", "1"))  # noqa: TID251  # more than in every run, by hand

_HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n"
REQUESTS = [
    post(),
    chat(stream=True),
    post(b"authorization: Bearer x", b"x-request-id: abc", b"origin: https://a.example", b"accept: */*"),
    _HEAD + b"transfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(CHAT), CHAT),
    _HEAD
    + b"transfer-encoding: chunked\r\n\r\n8\r\n%b\r\n%x;e=1\r\n%b\r\n0\r\nx-api-key: a\r\n\r\n"
    % (CHAT[:8], len(CHAT) - 8, CHAT[8:]),
    post(b"expect: 100-continue"),
    post(target=b"http://localhost/v1/chat/completions?a=%20b"),
    post(target=b"/v1/messages", body=b'{"model":"demo","max_tokens":5,"messages":[{"role":"user","content":"Hi"}]}'),
    post(target=b"/v1/embeddings", body=b'{"model":"demo","input":["a","b"]}'),
    b"GET /v1/models/demo:bf16 HTTP/1.1\r\nhost: localhost\r\n\r\n",
    b"GET /health HTTP/1.0\r\n\r\n",
    b"OPTIONS /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\norigin: https://a.example\r\n"
    b"access-control-request-method: POST\r\n\r\n",
    post() + b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n" + post(),
]
REQUEST_WORDS = [
    b"\r\n", b"\n", b"\r", b"\x00", b"\xff", b" ", b":", b"%", b"%00", b"%ff", b"?", b"#", b"//", b"..", b"\xc3\xa4",
    b"transfer-encoding: chunked\r\n", b"Transfer-Encoding: gzip, chunked\r\n", b"content-length: 5\r\n",
    b"Content-Length: 99999999999999999999\r\n", b"content-length: \xb2\r\n", b"content-length:\r\n",
    b"expect: 100-continue\r\n", b"upgrade: websocket\r\nconnection: upgrade\r\n", b"upgrade: h2c\r\n",
    b"connection: close\r\n", b"connection: keep-alive, upgrade\r\n", b"host: localhost\r\n", b"x-request-id: \xff\r\n",
    b"authorization: \xff\r\n", b"origin: \xff\r\n", b"HTTP/1.0", b"HTTP/2.0", b"0\r\n\r\n", b"ffffffffffffffff\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"CONNECT a:1 HTTP/1.1\r\nhost: localhost\r\n\r\n", b'{"model":', b"\\ud800",
    b'"\xed\xa0\x80"', b'"stream":1,', b"[" * 2000, b"TRACE", b"x" * 5000,
]  # fmt: skip


async def poke(house: House, random: Random, data: bytes) -> list[int]:
    """Send this; the statuses of all answers until the gateway closes the connection."""
    statuses: list[int] = []
    async with dialled(house) as wire, asyncio.timeout(BOUND_S):
        try:
            for piece in pieces_of(random, data):
                wire.send(piece)
                await wire.writer.drain()
            while True:
                statuses.append((await wire.answer()).status)
        except asyncio.IncompleteReadError as exc:
            assert not exc.partial, f"half an answer: {exc.partial!r} to {data!r}"
        except ConnectionError:
            pass  # closed with bytes of ours unread
        except TimeoutError:
            pytest.fail(f"neither an answer nor an end after {statuses} to {data!r}")
    return statuses


async def test_no_bytes_of_a_client_make_the_gateway_fail(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name, value in (
        ("listener._LOOK_EVERY", 0.02),
        ("connection._LINGER_S", 0.2),
        ("connection.KEEP_ALIVE_S", 0.3),
    ):
        monkeypatch.setattr(f"server.gateway.{name}", value)
    bounds = {"header_timeout_s": 0.2, "idle_timeout_s": 0.2, "max_body_bytes": 50_000, "max_header_bytes": 4096}
    async with open_house(**bounds, cors_origins=["https://a.example"]) as house:
        await house.know()
        house.engine.then(whole(ANSWER))
        for seed in range(20 * TIMES):
            random = Random(seed)
            cases = [mutated(random, REQUESTS, REQUEST_WORDS) for _ in range(AT_ONCE)]
            answers = await asyncio.gather(*(poke(house, random, case) for case in cases))
            failed = [
                (case, seen) for case, seen in zip(cases, answers, strict=True) if any(one >= 500 for one in seen)
            ]
            assert failed == []
        assert {json.loads((await house.chat()).content)["object"]} == {"chat.completion"}
        await until(lambda: house.worker.admission.in_flight == 0)
        assert (house.worker.admission.queued, house.worker.router.outstanding) == (0, {})
        assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []
        ids = [record.id for record in house.control.records]
        assert len(ids) == len(set(ids))
