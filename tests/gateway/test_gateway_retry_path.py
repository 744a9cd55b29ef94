"""A request that fails at one replica is served by another, or gets the engine's own answer; over real sockets."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from server.wire import ReplicaSeen
from tests.fakes.scripted_engine import EngineConnection, Script, ScriptedEngine, stream, token, whole
from tests.gateway.house import ANSWER, House, candidate, open_house, replica, route, until

pytestmark = pytest.mark.anyio

BUSY = (b"retry-after", b"7")


async def dies(connection: EngineConnection) -> None:
    """Reads the request and breaks the connection."""
    connection.reset()


async def dies_within(connection: EngineConnection) -> None:
    """Begins a stream, sends a token and breaks the connection."""
    connection.stream_head()
    connection.event(token("Hel"))
    connection.close()


def closed_port() -> int:
    """Where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


class Two:
    """Replicas `a` and `b` behind one id; `a` is asked first."""

    def __init__(self, house: House, second: ScriptedEngine) -> None:
        self.house = house
        self.a = house.engine
        self.b = second
        second.then(whole(ANSWER))

    async def know(self, *, a_port: int | None = None, only_a: bool = False) -> None:
        ports = {"a": a_port or self.a.port, "b": self.b.port}
        names = ["a"] if only_a else ["a", "b"]
        candidates = [candidate(replica=name) for name in names]
        await self.house.know(
            route("demo:bf16", *candidates), replicas=[replica(ports[name], name=name) for name in names]
        )

    def retries(self) -> dict[str, int]:
        return {reason: count for reason, count in self.house.worker.retries.spent.items() if count}


def seen_of(house: House) -> list[dict[str, ReplicaSeen]]:
    """What the worker told with each batch."""
    return [batch.gauges.seen for batch in house.control.batches]


@asynccontextmanager
async def two() -> AsyncIterator[Two]:
    async with open_house() as house, ScriptedEngine().running() as second:
        yield Two(house, second)


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (dies, "connection_lost"),
        (whole({"error": {"message": "busy"}}, 429), "status_429"),
        (whole({}, 502), "status_502"),
        (whole({}, 503), "status_503"),
        (whole({}, 504), "status_504"),
    ],
)
async def test_another_replica_serves_what_one_could_not(script: Script, reason: str) -> None:
    async with two() as pair:
        await pair.know()
        pair.a.then(script)
        answer = await pair.house.chat()
        assert (answer.status_code, answer.headers["x-wattgate-engine"]) == (200, "b")
        assert pair.retries() == {reason: 1}
        assert len(pair.a.requests) == len(pair.b.requests) == 1
        await pair.house.control.until(lambda: bool(pair.house.control.records))
        assert pair.house.control.records[0].retries == 1


async def test_replica_that_refuses_connections_is_left_alone_after_that_and_told_of() -> None:
    async with two() as pair:
        await pair.know(a_port=closed_port())
        for _ in range(3):
            assert (await pair.house.chat()).headers["x-wattgate-engine"] == "b"
        assert pair.retries() == {"connect_failed": 1}

        def told() -> ReplicaSeen:
            batches = pair.house.control.batches
            seen = [batch.gauges.seen["a"] for batch in batches if "a" in batch.gauges.seen]
            return seen[0] if seen else ReplicaSeen()

        await until(lambda: told() == ReplicaSeen(unreachable=1))


@pytest.mark.parametrize("status", [400, 404, 422, 500])
async def test_what_the_request_itself_may_have_caused_is_not_tried_again(status: int) -> None:
    async with two() as pair:
        await pair.know()
        pair.a.then(whole({"error": {"message": "no"}}, status))
        assert (await pair.house.chat()).status_code == status
        assert not pair.b.requests


async def test_nothing_is_tried_again_once_the_client_has_a_byte() -> None:
    async with two() as pair:
        await pair.know()
        pair.a.then(dies_within)
        answer = await pair.house.chat(stream=True)
        assert answer.status_code == 200
        assert b"Hel" in answer.content
        assert b'"upstream_error"' in answer.content
        assert not pair.b.requests


async def test_stream_begins_at_another_replica_if_the_first_died_before_its_head() -> None:
    async with two() as pair:
        await pair.know()
        pair.a.then(dies)
        pair.b.then(stream(token("Hello"), b"data: [DONE]\n\n"))
        answer = await pair.house.chat(stream=True)
        assert answer.headers["x-wattgate-engine"] == "b"
        assert b"Hello" in answer.content


async def test_request_that_ends_engines_ends_two_at_most() -> None:
    async with open_house() as house, ScriptedEngine().running() as second, ScriptedEngine().running() as third:
        engines = {"a": house.engine, "b": second, "c": third}
        for engine in engines.values():
            engine.then(dies)
        await house.know(
            route("demo:bf16", *(candidate(replica=name) for name in engines)),
            replicas=[replica(engine.port, name=name) for name, engine in engines.items()],
        )
        assert (await house.chat()).status_code == 502
        assert sum(len(engine.requests) for engine in engines.values()) == 2


async def test_replica_that_answers_500_is_no_better_for_having_answered() -> None:
    async with two() as pair:
        pair.a.then(whole({"error": "broken"}, 500))
        await pair.know(only_a=True)
        assert (await pair.house.chat()).status_code == 500
        await pair.house.control.until(lambda: {"a": ReplicaSeen(erred=1)} in seen_of(pair.house))


async def test_with_nowhere_else_to_go_there_is_one_attempt_and_the_engines_own_answer() -> None:
    async with two() as pair:
        await pair.know(only_a=True)
        pair.a.then(whole({"error": {"message": "come later"}}, 429, BUSY))
        answer = await pair.house.chat()
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "7")
        assert answer.json()["error"]["message"] == "come later"
        assert len(pair.a.requests) == 1
        assert pair.retries() == {}


async def test_each_replica_is_asked_once_and_the_last_ones_answer_is_passed_on() -> None:
    async with two() as pair:
        await pair.know()
        pair.a.then(dies)
        pair.b.then(whole({"error": {"message": "full"}}, 503, BUSY))
        answer = await pair.house.chat()
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "7")
        assert len(pair.a.requests) == len(pair.b.requests) == 1


async def test_engine_that_says_retry_after_is_left_alone_by_the_requests_that_follow() -> None:
    async with two() as pair:
        await pair.know()
        pair.a.then(whole({}, 429, BUSY), whole(ANSWER))
        engines = [(await pair.house.chat()).headers["x-wattgate-engine"] for _ in range(4)]
        assert engines == ["b"] * 4
        assert len(pair.a.requests) == 1
        assert pair.house.worker.router.avoided.keys() == {"a"}


async def test_retries_end_with_the_budget() -> None:
    async with two() as pair:
        await pair.know()
        pair.a.then(whole({"error": {"message": "busy"}}, 429))
        statuses = [(await pair.house.chat()).status_code for _ in range(6)]
        assert statuses == [200, 200, 200, 429, 429, 429]
        assert pair.retries() == {"status_429": 3}


async def test_engine_that_never_begins_is_not_given_up_on_for_another() -> None:
    async with open_house(first_byte_timeout_s=0.2) as house, ScriptedEngine().running() as second:
        pair = Two(house, second)
        await pair.know()

        async def waits(connection: EngineConnection) -> None:
            await connection.until_gone()

        pair.a.then(waits)
        answer = await pair.house.chat(stream=True)
        assert answer.status_code == 504
        assert not pair.b.requests
