"""Broken bytes from either side: an answer or an end every time, nothing leaks, and the next one is served."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections import Counter
from random import Random

import pytest

from server.clock import SystemClock
from server.errors import UpstreamFailedError, UpstreamTimeoutError
from server.gateway.upstream.http1 import Http1Upstream, UpstreamLimits
from server.units import Seconds
from tests.fakes.mutations import mutated, pieces_of
from tests.fakes.scripted_engine import DONE, EngineConnection, ScriptedEngine, chunked, head, token, whole
from tests.gateway.driven import driven
from tests.gateway.house import ANSWER, House, open_house, replica, until
from tests.gateway.raw import CHAT, chat, dialled, post

pytestmark = pytest.mark.anyio

BOUND_S = 20.0
AT_ONCE = 40
TIMES = int(os.environ.get("WATTGATE_FUZZ_TIMES", "1"))  # noqa: TID251  # by hand: many times as many cases

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
    post(b"origin: https://a.example", b"access-control-request-method: POST", method=b"OPTIONS", body=b""),
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
            if exc.partial:
                pytest.fail(f"half an answer: {exc.partial!r} to {data!r}")
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
        ("guarded._LINGER_S", 0.2),
        ("guarded.KEEP_ALIVE_S", 0.3),
    ):
        monkeypatch.setattr(f"server.gateway.{name}", value)
    bounds = {"header_timeout_s": 0.2, "idle_timeout_s": 0.2, "max_body_bytes": 50_000, "max_header_bytes": 4096}
    async with open_house(**bounds, cors_origins=["https://a.example"]) as house:
        await house.know()
        house.engine.then(whole(ANSWER))
        for seed in range(12 * TIMES):
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
        await until(lambda: not house.server.server_state.connections)


# --- the engine's side ------------------------------------------------------------------------------------------------

_OK = head(200, (b"content-type", b"application/json"), (b"content-length", b"11"))
_STREAM = head(200, (b"content-type", b"text/event-stream"), (b"transfer-encoding", b"chunked"))
ANSWERS = [
    _OK + b'{"model":1}',
    _STREAM + chunked(token("a")) + chunked(token("b") + DONE) + chunked(b""),
    _STREAM + chunked(token("a"))[:-2] + b"\r\n0;e=1\r\ntrailer: x\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" + _OK + b'{"model":1}',
    head(204) + b"",
    head(304, (b"content-length", b"5")),
    head(429, (b"retry-after", b"1"), (b"content-length", b"2")) + b"{}",
    head(200, (b"connection", b"close")) + b"until the end",
    b"HTTP/1.0 200 OK\r\n\r\nold",
]
ANSWER_WORDS = [
    b"\r\n", b"\n", b"\r", b"\x00", b"\xff", b" ", b":", b"0\r\n\r\n", b"ffffffffffffffff\r\n", b"-1\r\n", b"HTTP/1.0 ",
    b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 101 Switching Protocols\r\nupgrade: a\r\nconnection: upgrade\r\n\r\n",
    b"HTTP/1.1 999 What\r\n", b"HTTP/1.1 000 None\r\n", b"HTTP/1.1 99999 Much\r\n", b"transfer-encoding: gzip\r\n",
    b"transfer-encoding: chunked\r\n", b"content-length: 5\r\n", b"content-length: 99999999999999999999\r\n",
    b"content-length: -1\r\n", b"connection: close\r\n", b"connection: upgrade\r\nupgrade: h2c\r\n",
    b"x: " + b"y" * 70_000,
]  # fmt: skip


class Mutter:
    """Answers every request on a connection with the next bytes, then keeps quiet, closes, or dies."""

    def __init__(self, random: Random) -> None:
        self._random = random

    async def __call__(self, connection: EngineConnection) -> None:
        for piece in pieces_of(self._random, mutated(self._random, ANSWERS, ANSWER_WORDS)):
            if connection.transport.is_closing():
                return
            connection.send(piece)
            await asyncio.sleep(0)
        self._random.choice((connection.close, connection.reset, lambda: None))()


async def exchange(one: Http1Upstream, engine: ScriptedEngine, *, whole_answer: bool) -> str:
    """How one exchange with a muttering engine ended; anything but an answer or its two errors is a defect."""
    answer = one.exchange(replica(engine.port), "/v1/x", b"{}", whole=whole_answer)

    async def run() -> str:
        try:
            await answer.begin()
            if whole_answer:
                _, complete = await answer.whole(1000)
                return "answer" if complete else "long answer"
            await answer.pipe(lambda _at, _data: None)
        except UpstreamTimeoutError:
            return "timeout"
        except UpstreamFailedError:
            return "failure"
        finally:
            answer.close()
        return "answer"

    async with asyncio.timeout(BOUND_S):
        return await driven(run())


async def test_no_bytes_of_an_engine_hang_an_exchange_or_cost_a_connection() -> None:
    seconds = {"connect_timeout": 5.0, "first_byte_timeout": 0.2, "whole_answer_timeout": 0.2, "idle_timeout": 0.2}
    limits = UpstreamLimits(connections=AT_ONCE // 2, **{name: Seconds(value) for name, value in seconds.items()})
    ends: Counter[str] = Counter()
    async with ScriptedEngine().running() as engine:
        one = Http1Upstream(limits, clock=SystemClock())
        for seed in range(12 * TIMES):
            engine.then(Mutter(Random(seed)))
            ends.update(
                await asyncio.gather(*(exchange(one, engine, whole_answer=bool(turn % 2)) for turn in range(AT_ONCE)))
            )
        engine.then(whole({"good": 1}))
        # As many at once as there are seats: had one been lost, the last of these would wait in vain.
        good = await asyncio.gather(*(exchange(one, engine, whole_answer=True) for _ in range(limits.connections)))
        assert set(good) == {"answer"}
        open_now = [connection for connection in engine.connections if not connection.gone.is_set()]
        assert len(open_now) <= limits.connections
        await one.aclose()
        await until(lambda: all(connection.gone.is_set() for connection in engine.connections))
    assert set(ends) == {"answer", "long answer", "timeout", "failure"}, ends


async def test_no_bytes_of_an_engine_make_a_worker_fail(caplog: pytest.LogCaptureFixture) -> None:
    """What the client gets is whole HTTP, and an error only as 502, 504, or the engine's own."""
    bounds = {"first_byte_timeout_s": 0.2, "whole_answer_timeout_s": 0.2, "idle_timeout_s": 0.2}
    async with open_house(**bounds) as house:
        await house.know(rewrite_model=True)

        async def ask(*, streamed: bool) -> int:
            async with dialled(house) as wire:
                try:
                    return (await wire.ask(chat(stream=streamed))).status
                except asyncio.IncompleteReadError:
                    return 0  # cut, so that it can be told from a whole one

        for seed in range(8 * TIMES):
            house.engine.then(Mutter(Random(1000 + seed)))
            statuses = await asyncio.gather(*(ask(streamed=bool(turn % 2)) for turn in range(AT_ONCE)))
            assert 500 not in statuses
        house.engine.then(whole(ANSWER))
        await until(lambda: house.worker.admission.in_flight == 0)
        assert (house.worker.admission.queued, house.worker.router.outstanding) == (0, {})
        await until(lambda: len(house.control.records) == 8 * TIMES * AT_ONCE)
        assert {record.outcome for record in house.control.records} & {"internal_error"} == set()
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []
