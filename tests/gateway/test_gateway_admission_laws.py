"""Laws of admission and routing together, under any order of coming, leaving, giving up and running out of time."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.clock import SystemClock
from server.errors import RequestError
from server.gateway.admission import Admission, Claim
from server.gateway.drive import Drive, Signal
from server.gateway.endpoints import ENDPOINTS
from server.gateway.routing.router import Ask, Plan, Router
from server.units import Seconds
from tests.gateway.house import candidate, replica, route, table

CHAT = ENDPOINTS[0]
ASK = Ask(b"{}")
BOUNDS = {"a": 1, "b": 2, "c": None}
ROUTES = {"one": "a", "two": "b", "both": "ab", "any": "abc", "free": "c"}
TIMEOUT = 10.0
MAX_IN_FLIGHT, MAX_BYTES, MAX_OF_TENANT, MAX_QUEUE = 4, 20, 3, 4


class SteppedLoop(asyncio.SelectorEventLoop):
    """Its time passes only when told; a turn of it is run at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def time(self) -> float:
        return self.now

    def do(self, something: Callable[[], None]) -> None:
        """What an event's callback would do, before the turn in which it would be done."""
        asyncio._set_running_loop(self)
        try:
            something()
        finally:
            asyncio._set_running_loop(None)

    def turn(self) -> None:
        self.call_soon(self.stop)
        self.run_forever()


def snapshot(healthy: str = "abc", starting: str = "") -> Any:
    replicas = [replica(1, name=name, healthy=name in healthy, max_in_flight=BOUNDS[name]) for name in BOUNDS]
    routes = [
        route(
            name,
            *(candidate(replica=one) for one in members),
            policy="least_outstanding",
            starting=bool(set(members) & set(starting)),
        )
        for name, members in ROUTES.items()
    ]
    return table(1, replicas, *routes)


class Visitor:
    """A request as the path has it."""

    def __init__(self, house: House, plan: Plan, tenant: str, priority: int, size: int) -> None:
        self.claim = Claim(tenant, priority, size, plan)
        self.plan = plan
        self.house = house
        self.state = "new"
        self.done = Signal()
        self.number = len(house.visitors)
        self.drive = Drive(self._visit())

    async def _visit(self) -> None:
        house = self.house
        before = house.able()
        try:
            if not house.admission.try_enter(self.claim):
                self.state = "waits"
                await house.admission.enter(self.claim)
        except (RequestError, asyncio.CancelledError) as exc:
            self.state = type(exc).__name__
            return
        if self.state == "new":
            assert all(one.priority > self.claim.priority for one in before)
        house.check_turn(self)
        try:
            target = house.router.choose(self.plan, ASK)
        except RequestError:
            self.state = "lost its engine"
            house.admission.leave(self.claim)
            return
        name = target.replica.name
        house.router.sent(name)
        self.state = "runs"
        with suppress(asyncio.CancelledError):
            await self.done
        self.state = "ended"
        house.router.ended(name)
        house.admission.leave(self.claim)


class House:
    """Admission, router and everybody who came."""

    def __init__(self, loop: SteppedLoop) -> None:
        self.loop = loop
        self.router = Router(SystemClock())
        self.router.replace(snapshot())
        self.admission = Admission(
            max_in_flight=MAX_IN_FLIGHT,
            max_in_flight_bytes=MAX_BYTES,
            max_in_flight_per_tenant=MAX_OF_TENANT,
            max_queue=MAX_QUEUE,
            queue_timeout=Seconds(TIMEOUT),
            clock=SystemClock(),
        )
        self.router.on_room = self.admission.look_again
        self.visitors: list[Visitor] = []

    def comes(self, name: str, tenant: str, priority: int, size: int) -> None:
        visitor = Visitor(self, self.router.route_of(name, CHAT), tenant, priority, size)
        self.visitors.append(visitor)
        self.loop.do(visitor.drive.start)

    def having(self, state: str) -> list[Visitor]:
        return [one for one in self.visitors if one.state == state]

    def waiting(self) -> list[Visitor]:
        return [one for one in self.having("waits") if one.claim.waits]

    def check_turn(self, visitor: Visitor) -> None:
        """Whoever goes on has nobody of the same tenant, route and band before him."""
        mine = visitor.claim
        for other in self.waiting():
            theirs = other.claim
            if (theirs.tenant, theirs.route, theirs.priority) == (mine.tenant, mine.route, mine.priority):
                assert other.number > visitor.number

    def check_bounds(self) -> None:
        held = [one.claim for one in self.visitors if one.claim.has_slot]
        assert self.admission.in_flight == len(held) <= MAX_IN_FLIGHT
        assert self.admission.in_flight_bytes == sum(claim.size for claim in held) <= MAX_BYTES
        assert max(Counter(claim.tenant for claim in held).values(), default=0) <= MAX_OF_TENANT
        assert self.admission.queued == len(self.waiting()) <= MAX_QUEUE
        assert sum(one.claim.size for one in self.waiting()) <= MAX_BYTES
        for name, count in self.router.outstanding.items():
            assert 0 < count <= (BOUNDS[name] or MAX_IN_FLIGHT)

    def able(self) -> list[Claim]:
        """Those who wait and are not held up by a bound of their own."""
        tenants = Counter(one.claim.tenant for one in self.visitors if one.claim.has_slot)
        return [
            one.claim
            for one in self.waiting()
            if tenants[one.claim.tenant] < MAX_OF_TENANT and one.plan.room() is not None
        ]

    def check_nobody_waits_in_vain(self) -> None:
        """Of those who are not held up by a bound of their own, the first lacks what all share."""
        able = self.able()
        first = [one for one in able if one.priority == min(claim.priority for claim in able)]
        if first:
            room = MAX_BYTES - self.admission.in_flight_bytes
            assert self.admission.in_flight == MAX_IN_FLIGHT or max(one.size for one in first) > room
        assert not any(one.plan.hopeless for one in self.waiting())

    def settle(self) -> None:
        for _ in range(4):
            self.loop.turn()


@contextmanager
def opened() -> Iterator[House]:
    loop = SteppedLoop()
    try:
        yield House(loop)
    finally:
        loop.close()


COMES = st.tuples(
    st.just("comes"),
    st.sampled_from(sorted(ROUTES)),
    st.sampled_from("tuv"),
    st.sampled_from([0, 0, 0, 1, -1]),
    st.sampled_from([1, 1, 2, 9, 20]),
)
OTHERS = st.tuples(st.sampled_from(["ends", "ends", "cancelled", "turn", "settle", "time"]), st.integers(0, 99))
HEALTH = st.tuples(st.just("health"), st.sampled_from(["abc", "abc", "ac", "c", ""]), st.sampled_from(["", "ab"]))


def act(house: House, kind: str, *facts: Any) -> None:
    if kind == "comes":
        house.comes(*facts)
    elif kind == "ends" and (running := house.having("runs")):
        house.loop.do(running[facts[0] % len(running)].done.set)
    elif kind == "cancelled" and (there := house.having("runs") + house.having("waits")):
        house.loop.do(there[facts[0] % len(there)].drive.cancel)
    elif kind == "turn":
        house.loop.turn()
    elif kind == "settle":
        house.settle()
        house.check_nobody_waits_in_vain()
    elif kind == "time":
        house.loop.now += facts[0] / 10
        house.loop.turn()
    elif kind == "health":
        house.router.replace(snapshot(*facts))


@pytest.mark.parametrize("health", [False, True], ids=["engines stay", "engines come and go"])
@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_bounds_hold_and_nobody_waits_in_vain(health: bool, data: st.DataObject) -> None:
    steps = data.draw(st.lists(st.one_of(COMES, COMES, OTHERS, *([HEALTH] if health else [])), max_size=60))
    with opened() as house:
        for step in steps:
            act(house, *step)
            house.check_bounds()
        house.settle()
        house.check_bounds()
        house.check_nobody_waits_in_vain()
        assert health or not house.having("lost its engine")
        house.router.replace(snapshot())
        for _ in range(100):
            house.settle()
            house.check_bounds()
            house.check_nobody_waits_in_vain()
            if not (running := house.having("runs")):
                break
            house.loop.do(running[0].done.set)
        assert not house.having("waits")
        check_empty(house)


def check_empty(house: House) -> None:
    one = house.admission
    assert (one.in_flight, one.in_flight_bytes, one.queued, house.router.outstanding) == (0, 0, 0, {})
    states = Counter(visitor.state for visitor in house.visitors)
    refused = states["ContendedError"] + states["NoCapacityError"]
    # Some may have left in the turn in which they were refused.
    assert refused <= sum(one.rejections.values()) <= refused + states["CancelledError"]


@settings(deadline=None, max_examples=50)
@given(st.lists(COMES, min_size=5, max_size=30))
def test_everybody_gone_leaves_nothing_behind(comes: list[Any]) -> None:
    with opened() as house:
        for step in comes:
            act(house, *step)
        for visitor in house.visitors:
            house.loop.do(visitor.drive.cancel)
        house.settle()
        check_empty(house)


def test_room_that_was_kept_and_is_not_taken_goes_to_the_next() -> None:
    with opened() as house:
        members = [replica(1, name="a", max_in_flight=1), replica(1, name="b", max_in_flight=1)]
        prefers_b = route("both", candidate(replica="b"), candidate(replica="a"))
        house.router.replace(table(2, members, prefers_b, route("one", candidate(replica="a"))))
        for name, tenant in (("one", "t"), ("both", "t"), ("both", "u"), ("one", "v")):
            house.comes(name, tenant, 0, 1)
        at_a, at_b, either, only_a = house.visitors
        house.loop.do(at_a.done.set)
        assert either.claim.promised == "a"
        house.loop.do(at_b.done.set)
        house.settle()
        assert (either.state, only_a.state) == ("runs", "runs")


def test_route_of_a_snapshot_that_dropped_it_serves_nobody() -> None:
    with opened() as house:
        house.comes("one", "t", 0, 1)
        house.comes("one", "t", 0, 1)
        known = snapshot()
        house.router.replace(msgspec.structs.replace(known, routes={"free": known.routes["free"]}))
        house.settle()
        assert [one.state for one in house.visitors] == ["runs", "NoCapacityError"]
