"""Bounds of admission as clients meet them."""

from __future__ import annotations

import asyncio

import pytest

from tests.fakes.scripted_engine import EngineConnection, whole
from tests.gateway.house import ANSWER, House, candidate, open_house, replica, route, until

pytestmark = pytest.mark.anyio


async def know_two(house: House) -> None:
    """`narrow` at a replica that takes one request at a time, `wide` at one without a bound, `both` at either."""
    port = house.engine.port
    narrow, wide = candidate(replica="narrow"), candidate(replica="wide")
    await house.know(
        route("narrow", narrow),
        route("wide", wide),
        route("both", narrow, wide),
        replicas=[replica(port, name="narrow", max_in_flight=1), replica(port, name="wide")],
    )


class Held:
    """The engine's answer, held back until it is released."""

    def __init__(self) -> None:
        self.release = asyncio.Event()

    async def __call__(self, connection: EngineConnection) -> None:
        await self.release.wait()
        await whole(ANSWER)(connection)


async def test_full_engine_holds_up_its_own_requests_and_nobody_elses(house: House) -> None:
    await know_two(house)
    held = Held()
    house.engine.then(held, *[whole(ANSWER)] * 3)
    first = asyncio.ensure_future(house.chat(model="narrow"))
    await house.engine.request()
    second = asyncio.ensure_future(house.chat(model="narrow"))
    await until(lambda: house.worker.admission.queued == 1)
    for model in ("wide", "both"):
        answer = await house.chat(model=model)
        assert (answer.status_code, answer.headers["x-wattgate-engine"]) == (200, "wide")
    assert not second.done()
    held.release.set()
    assert {answer.status_code for answer in await asyncio.gather(first, second)} == {200}
    assert (house.worker.admission.in_flight, house.worker.router.outstanding) == (0, {})


async def test_request_waits_for_an_engine_that_starts_and_is_served(house: House) -> None:
    port = house.engine.port
    await house.know(route("demo", candidate(), starting=True), replicas=[replica(port, healthy=False)])
    house.engine.then(whole(ANSWER))
    early = asyncio.ensure_future(house.chat(model="demo"))
    await until(lambda: house.worker.admission.queued == 1)
    await house.know()
    assert (await early).status_code == 200


async def test_request_that_waits_for_an_engine_that_is_given_up_is_a_503_at_once(house: House) -> None:
    port = house.engine.port
    await house.know(route("demo", candidate(), starting=True), replicas=[replica(port, healthy=False)])
    early = asyncio.ensure_future(house.chat(model="demo"))
    await until(lambda: house.worker.admission.queued == 1)
    await house.know(route("demo", candidate()), replicas=[replica(port, healthy=False)])
    assert (await early).status_code == 503


async def test_tenants_requests_beyond_its_bound_wait() -> None:
    async with open_house(max_in_flight_per_tenant=1) as house:
        await house.know()
        held = Held()
        house.engine.then(held, whole(ANSWER))
        first = asyncio.ensure_future(house.chat())
        await house.engine.request()
        second = asyncio.ensure_future(house.chat())
        await until(lambda: house.worker.admission.queued == 1)
        held.release.set()
        assert {answer.status_code for answer in await asyncio.gather(first, second)} == {200}
