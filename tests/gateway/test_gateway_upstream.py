"""The HTTP/1.1 client against an engine that does what engines do."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.clock import SystemClock
from server.errors import ContendedError, UpstreamFailedError, UpstreamTimeoutError
from server.gateway.upstream.connection import Connection
from server.gateway.upstream.http1 import Http1Upstream, UpstreamLimits
from server.gateway.upstream.upstream import Exchange
from tests.fakes.certificates import make_certificate
from tests.fakes.scripted_engine import EngineConnection, ScriptedEngine, chunked, head, verbatim, whole
from tests.gateway.driven import driven
from tests.gateway.house import replica, standing_still, until

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def upstream(*, tls: ssl.SSLContext | None = None, **bounds: Any) -> AsyncIterator[Http1Upstream]:
    known = {"connections": 8, "connect_timeout": 5.0, "first_byte_timeout": 20.0, "whole_answer_timeout": 20.0}
    one = Http1Upstream(UpstreamLimits(**{**known, "idle_timeout": 20.0, **bounds}), clock=SystemClock(), tls=tls)
    try:
        yield one
    finally:
        await one.aclose()


async def ask(one: Http1Upstream, engine: ScriptedEngine, body: bytes = b"{}", **changes: Any) -> tuple[int, bytes]:
    pieces: list[bytes] = []
    answer = await piped(one, engine, pieces, body, **changes)
    return answer.status, b"".join(pieces)


async def piped(
    one: Http1Upstream, engine: ScriptedEngine, pieces: list[bytes], body: bytes = b"{}", **changes: Any
) -> Exchange:
    """An exchange to its end, its body's pieces as they came."""
    whole_wanted = changes.pop("whole", False)
    answer = one.exchange(replica(engine.port, **changes), "/v1/x", body, whole=whole_wanted)

    async def run() -> None:
        try:
            await answer.begin()
            await answer.pipe(lambda _at, data: pieces.append(data))
        finally:
            answer.close()

    await driven(run())
    return answer


async def test_request_carries_the_replicas_prefix_and_key() -> None:
    async with upstream() as one, ScriptedEngine().running() as engine:
        await ask(one, engine, b'{"a":1}', path_prefix="/deep")
        seen = engine.requests[0]
        assert seen.target == "POST /deep/v1/x HTTP/1.1"
        assert seen.headers["authorization"] == "Bearer engine-secret"
        assert seen.headers["host"] == f"127.0.0.1:{engine.port}"
        assert seen.body == b'{"a":1}'


async def test_connection_is_kept_for_the_next_request() -> None:
    async with upstream() as one, ScriptedEngine().running() as engine:
        assert [await ask(one, engine) for _ in range(3)] == [(200, b'{"object": "scripted"}')] * 3
        assert len(engine.connections) == 1


@pytest.mark.parametrize("how", ["length", "chunked", "until_close"])
@given(places=st.lists(st.integers(0, 400), max_size=8), interim=st.integers(0, 2))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=15, deadline=None)
def test_body_is_the_same_however_it_is_framed_and_cut(how: str, places: list[int], interim: int) -> None:
    body = bytes(range(256)) + b"\r\n0\r\n\r\n"
    answer = {
        "length": head(200, (b"Content-Length", b"%d" % len(body))) + body,
        "chunked": head(200, (b"Transfer-Encoding", b"chunked"))
        + chunked(body[:100])
        + chunked(body[100:])
        + chunked(b""),
        "until_close": head(200) + body,
    }[how]
    answer = b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n" * interim + answer
    edges = [0, *sorted({place % len(answer) for place in places}), len(answer)]
    pieces = [answer[start:end] for start, end in pairwise(edges) if start < end]

    async def script(connection: EngineConnection) -> None:
        await verbatim(pieces)(connection)
        if how == "until_close":
            connection.close()

    async def run() -> None:
        async with upstream() as one, ScriptedEngine().running() as engine:
            engine.then(script)
            assert await ask(one, engine) == (200, body)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("sent", "says"),
    [
        (b"", "closed the connection before it answered"),
        (b"HTTP/1.1 200 OK\r\ncontent-", "closed the connection before it answered"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", "closed the connection before it answered"),
        (b"SSH-2.0-OpenSSH\r\n", "sent something that is not HTTP"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"y" * 70_000, "sent a head without end"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n", "not HTTP"),
        (head(200, (b"content-length", b"10")) + b"12345", "in the middle of its answer"),
        (head(200, (b"transfer-encoding", b"chunked")) + chunked(b"12345"), "in the middle of its answer"),
        (head(200, (b"transfer-encoding", b"chunked")) + b"zz\r\n", "not HTTP"),
    ],
)
async def test_broken_answer_is_told_from_a_whole_one(sent: bytes, says: str) -> None:
    async def script(connection: EngineConnection) -> None:
        connection.send(sent)
        connection.close()

    async with upstream() as one, ScriptedEngine().running() as engine:
        engine.then(script)
        with pytest.raises(UpstreamFailedError, match=says):
            await ask(one, engine)


async def test_what_arrived_before_the_death_is_read_before_the_error() -> None:
    async def script(connection: EngineConnection) -> None:
        connection.send(head(200, (b"transfer-encoding", b"chunked")), chunked(b"first"))
        connection.close()

    async with upstream() as one, ScriptedEngine().running() as engine:
        engine.then(script)
        pieces: list[bytes] = []
        with pytest.raises(UpstreamFailedError):
            await piped(one, engine, pieces)
        assert pieces == [b"first"]


async def test_whole_answer_is_read_up_to_its_bound_and_can_be_piped_on() -> None:
    async def three(connection: EngineConnection) -> None:
        connection.send(head(200, (b"content-length", b"300000")))
        for letter in (b"a", b"b", b"c"):
            connection.send(letter * 100_000)

    async with upstream() as one, ScriptedEngine().running() as engine:
        engine.then(three)
        answer = one.exchange(replica(engine.port), "/v1/x", b"{}", whole=True)
        got: list[bytes] = []

        async def run() -> tuple[bytes, bool]:
            await answer.begin()
            begun = await answer.whole(1000)
            await answer.pipe(lambda _at, data: got.append(data))
            answer.close()
            return begun

        begun, complete = await driven(run())
        assert not complete
        assert b"".join(got) == b"a" * 100_000 + b"b" * 100_000 + b"c" * 100_000
        assert b"".join(got).startswith(begun)


async def test_whole_answer_may_take_longer_to_begin_than_a_streamed_one() -> None:
    async def silent(connection: EngineConnection) -> None:
        await connection.until_gone()

    async with (
        upstream(first_byte_timeout=0.02, whole_answer_timeout=0.06) as one,
        ScriptedEngine().running() as engine,
    ):
        engine.then(silent)
        with pytest.raises(UpstreamTimeoutError, match=r"did not answer within 0\.06 s"):
            await ask(one, engine, whole=True)


async def test_kept_connection_that_the_engine_closed_is_replaced_once() -> None:
    async def close_unanswered(connection: EngineConnection) -> None:
        connection.reset()

    async with upstream() as one, ScriptedEngine().running() as engine:
        engine.then(whole({}), close_unanswered, whole({"again": True}))
        await ask(one, engine)
        assert await ask(one, engine) == (200, b'{"again": true}')
        assert one.retries == {"stale_connection": 1}
        assert len(engine.requests) == 3


async def test_connection_that_is_lost_before_the_request_is_written_is_a_failed_engine() -> None:
    async with upstream() as one, ScriptedEngine().running() as engine:
        connection = Connection(SystemClock())  # no longer connected
        answer = one.exchange(replica(engine.port), "/v1/x", b"{}", whole=True)
        connection.send(answer, b"", b"")
        with pytest.raises(UpstreamFailedError, match="closed the connection before it answered"):
            await driven(answer.whole(1))


async def test_kept_connection_that_dies_at_work_is_not_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.gateway.upstream.http1._STALE_WITHIN", 0.0)

    async def die(connection: EngineConnection) -> None:
        connection.reset()

    async with upstream() as one, ScriptedEngine().running() as engine:
        engine.then(whole({}), die, whole({}))
        await ask(one, engine)
        with pytest.raises(UpstreamFailedError):
            await ask(one, engine)
        assert len(engine.requests) == 2


async def test_connection_that_dies_with_a_response_byte_is_not_tried_again() -> None:
    async def half_a_line(connection: EngineConnection) -> None:
        connection.send(b"HTTP/1.1 2")
        connection.close()

    async with upstream() as one, ScriptedEngine().running() as engine:
        engine.then(whole({}), half_a_line, whole({}))
        await ask(one, engine)
        with pytest.raises(UpstreamFailedError):
            await ask(one, engine)
        assert len(engine.requests) == 2


async def test_fresh_connection_that_dies_unanswered_is_not_tried_again() -> None:
    async def close_unanswered(connection: EngineConnection) -> None:
        connection.close()

    async with upstream() as one, ScriptedEngine().running() as engine:
        engine.then(close_unanswered)
        with pytest.raises(UpstreamFailedError):
            await ask(one, engine)
        assert len(engine.requests) == 1


async def test_connection_whose_engine_says_close_is_not_used_again() -> None:
    async with upstream() as one, ScriptedEngine().running() as engine:
        engine.then(whole({}, 200, (b"connection", b"close")))
        await ask(one, engine)
        await ask(one, engine)
        assert len(engine.connections) == 2


async def test_bytes_after_an_answer_end_the_connection_but_not_the_answer() -> None:
    async def too_much(connection: EngineConnection) -> None:
        answer = head(200, (b"content-length", b"2")) + b"ok"
        connection.send(answer, answer)

    async with upstream() as one, ScriptedEngine().running() as engine:
        engine.then(too_much)
        assert await ask(one, engine) == (200, b"ok")
        assert await ask(one, engine) == (200, b"ok")
        assert len(engine.connections) == 2


async def test_answer_before_the_request_was_sent_is_taken_and_the_connection_is_not_kept() -> None:
    async def too_large(connection: EngineConnection) -> None:
        connection.transport.pause_reading()
        await whole({"error": "too large"}, 413)(connection)

    async with upstream() as one, ScriptedEngine().running() as engine:
        engine.answers_early = True
        engine.then(too_large)
        status, _ = await ask(one, engine, b"x" * 8_000_000)
        assert status == 413
        engine.connections[0].transport.resume_reading()
        await engine.connections[0].until_gone()


async def test_all_connections_busy_is_contention_after_a_bounded_wait() -> None:
    async def silent(connection: EngineConnection) -> None:
        await connection.until_gone()

    async with upstream(connections=1, connect_timeout=0.02) as one, ScriptedEngine().running() as engine:
        engine.then(silent)
        first = asyncio.ensure_future(ask(one, engine))
        await engine.request()
        with pytest.raises(ContendedError, match="All 1 connections"):
            await ask(one, engine)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        engine.then(whole({}))
        assert (await ask(one, engine))[0] == 200


async def test_who_waits_for_a_connection_gets_the_one_that_comes_free() -> None:
    answer_now = asyncio.Event()

    async def later(connection: EngineConnection) -> None:
        await answer_now.wait()
        await whole({})(connection)

    async with upstream(connections=1) as one, ScriptedEngine().running() as engine:
        engine.then(later, whole({}))
        both = [asyncio.ensure_future(ask(one, engine)) for _ in range(2)]
        await engine.request()
        answer_now.set()
        assert [status for status, _ in await asyncio.gather(*both)] == [200, 200]
        assert len(engine.connections) == 1


async def test_engine_that_does_not_begin_in_time_is_too_slow() -> None:
    async def silent(connection: EngineConnection) -> None:
        await connection.until_gone()

    async with upstream(first_byte_timeout=0.05) as one, ScriptedEngine().running() as engine:
        engine.then(silent)
        with pytest.raises(UpstreamTimeoutError, match="did not begin to answer"):
            await ask(one, engine)
        await engine.requests[0].until_gone()


async def test_engine_that_falls_silent_is_too_slow() -> None:
    async def half(connection: EngineConnection) -> None:
        connection.send(head(200, (b"content-length", b"10")), b"12345")
        await connection.until_gone()

    async with upstream(idle_timeout=0.05) as one, ScriptedEngine().running() as engine:
        engine.then(half)
        with pytest.raises(UpstreamTimeoutError, match="fell silent"):
            await ask(one, engine)


async def test_port_that_nobody_listens_on_is_a_failed_engine() -> None:
    async with upstream() as one, ScriptedEngine().running() as engine:
        gone = engine.port
    async with upstream() as one, ScriptedEngine().running() as engine:
        engine.port = gone
        with pytest.raises(UpstreamFailedError, match="cannot be reached"):
            await ask(one, engine)


async def test_engine_waits_while_the_client_does() -> None:
    size = 32 * 2**20
    blocked = asyncio.Event()

    async def endless(connection: EngineConnection) -> None:
        connection.send(head(200, (b"content-length", b"%d" % size)), b"x" * size)
        if connection.transport.get_write_buffer_size() > 0:
            blocked.set()

    async with upstream() as one, ScriptedEngine().running() as engine:
        engine.then(endless)
        answer = one.exchange(replica(engine.port), "/v1/x", b"{}", whole=False)
        got = 0

        def take(_at: float, data: bytes) -> None:
            nonlocal got
            got += len(data)

        async def run() -> None:
            await answer.begin()
            answer.pause()
            await answer.pipe(take)
            answer.close()

        running = asyncio.ensure_future(driven(run()))
        await blocked.wait()
        await until(standing_still(lambda: got))
        assert engine.requests[0].transport.get_write_buffer_size() > size // 2
        answer.resume()
        await running
        assert got == size


async def test_request_is_sent_when_its_last_byte_has_left() -> None:
    async def read_late(connection: EngineConnection) -> None:
        await whole({})(connection)

    async with upstream() as one, ScriptedEngine().running() as engine:
        engine.then(read_late)
        answer = await piped(one, engine, [], b"x" * 4_000_000)
        assert answer.sent_at is not None
        assert answer.first_byte_at is not None
        assert answer.sent_at <= answer.first_byte_at


async def test_connections_to_a_replica_that_is_gone_are_closed() -> None:
    async with upstream() as one, ScriptedEngine().running() as engine:
        await ask(one, engine)
        one.retain([])
        await engine.connections[0].until_gone()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 that signs itself, with its key, in one file."""
    cert, key = make_certificate(tmp_path_factory.mktemp("tls"))
    cert.write_bytes(cert.read_bytes() + key.read_bytes())
    return cert


async def test_engine_with_a_trusted_certificate_is_asked_over_tls(certificate: Path) -> None:
    theirs = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    theirs.load_cert_chain(certificate)
    ours = ssl.create_default_context(cafile=str(certificate))
    async with upstream(tls=ours) as one, ScriptedEngine().running(theirs) as engine:
        assert await ask(one, engine, tls=True) == (200, b'{"object": "scripted"}')


async def test_engine_with_an_unknown_certificate_is_refused(certificate: Path) -> None:
    theirs = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    theirs.load_cert_chain(certificate)
    async with upstream() as one, ScriptedEngine().running(theirs) as engine:
        with pytest.raises(UpstreamFailedError, match="certificate verify failed"):
            await ask(one, engine, tls=True)
        assert engine.requests == []


async def test_body_that_arrives_json_leaves_json() -> None:
    async with upstream() as one, ScriptedEngine().running() as engine:
        await ask(one, engine, json.dumps({"ä": "€"}, ensure_ascii=False).encode())
        assert engine.requests[0].json == {"ä": "€"}
        assert engine.requests[0].headers["content-type"] == "application/json"
