"""Slots, the queue before them, and the order in it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pydantic import ValidationError

from server.clock import Clock, SystemClock
from server.config.settings import GatewaySettings
from server.errors import ContendedError, NoCapacityError, RequestError
from server.gateway.admission import REASONS, Admission, Claim
from server.gateway.line import Destination
from server.units import Seconds
from tests.fakes.clock import FakeClock
from tests.gateway.house import until

pytestmark = pytest.mark.anyio


class Anywhere:
    """A route with as much room as the test gives it."""

    def __init__(self, *, room: int | None = None, serves: bool = True, starting: bool = False) -> None:
        self.left = room
        self.serves = serves
        self.hopeless = not serves and not starting

    @property
    def tight(self) -> bool:
        return self.left is not None or not self.serves

    def room(self) -> str | None:
        return "engine" if self.serves and self.left != 0 else None

    def hold(self, replica: str) -> None:
        assert self.left
        self.left -= 1

    def free(self, replica: str) -> None:
        assert self.left is not None
        self.left += 1

    def nobody(self) -> NoCapacityError:
        return NoCapacityError("nobody serves this")


ANYWHERE = Anywhere()


def admission(*, timeout: float = 20, clock: Clock | None = None, **bounds: Any) -> Admission:
    known: dict[str, Any] = {
        "max_in_flight": 1, "max_in_flight_bytes": 1000, "max_in_flight_per_tenant": None, "max_queue": 9
    }  # fmt: skip
    return Admission(**(known | bounds), queue_timeout=Seconds(timeout), clock=clock or SystemClock())


def claim(tenant: str = "t", *, priority: int = 0, size: int = 1, route: Destination = ANYWHERE) -> Claim:
    return Claim(tenant, priority, size, route)


class Crowd:
    """Requests that stand in line, and the order in which they were served; whoever is served keeps the slot."""

    def __init__(self, one: Admission) -> None:
        self.admission = one
        self.served: list[str] = []
        self.refused: dict[str, RequestError] = {}
        self.claims: dict[str, Claim] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def comes(self, name: str, tenant: str = "t", **facts: Any) -> None:
        """One more stands in line (or is served or refused at once)."""
        self.claims[name] = claim(tenant, **facts)
        self.tasks[name] = asyncio.ensure_future(self._visit(name))
        await asyncio.sleep(0)

    async def _visit(self, name: str) -> None:
        try:
            await self.admission.enter(self.claims[name])
        except RequestError as exc:
            self.refused[name] = exc
        else:
            self.served.append(name)

    async def goes(self, name: str) -> None:
        """The one who was served leaves, and whoever is next is served."""
        self.admission.leave(self.claims[name])
        await asyncio.sleep(0.001)

    async def serve_all(self) -> str:
        """One leaves after the other; the order in which all were served."""
        for name in self.served:  # which grows meanwhile
            if self.claims[name].has_slot:
                await self.goes(name)
        return " ".join(self.served)


async def test_free_slot_costs_no_wait() -> None:
    one = admission()
    assert await one.enter(claim()) == 0.0
    assert (one.in_flight, one.queued) == (1, 0)


async def test_slot_that_is_not_held_cannot_be_given_back() -> None:
    one, held = admission(), claim()
    assert one.try_enter(held)
    one.leave(held)
    with pytest.raises(AssertionError, match="not held"):
        one.leave(held)
    assert one.in_flight == 0


async def test_who_waits_gets_the_slot_in_the_order_of_coming_and_knows_how_long_it_took() -> None:
    one, first, second = admission(), claim(), claim()
    assert one.try_enter(first)
    assert not one.try_enter(second)
    waiting = asyncio.ensure_future(one.enter(second))
    await until(lambda: one.queued == 1)
    one.leave(first)
    assert await waiting > 0


async def test_nobody_jumps_the_line_in_the_turn_in_which_a_slot_comes_free() -> None:
    one, first = admission(), claim()
    crowd = Crowd(one)
    assert one.try_enter(first)
    await crowd.comes("second")
    one.leave(first)
    assert not one.try_enter(claim())
    await asyncio.gather(*crowd.tasks.values())
    assert crowd.served == ["second"]


# --- refusals ---------------------------------------------------------------------------------------------------------


async def test_full_queue_refuses_with_a_time_to_come_back() -> None:
    one = admission(max_queue=0)
    assert one.try_enter(claim())
    with pytest.raises(ContendedError, match="0 requests are waiting already") as caught:
        await one.enter(claim())
    assert caught.value.retry_after == 1.0
    assert one.rejections == dict.fromkeys(REASONS, 0) | {"queue_full": 1}


async def test_wait_that_is_too_long_ends_in_a_refusal_and_frees_the_place() -> None:
    one, held = admission(timeout=0.01), claim()
    assert one.try_enter(held)
    with pytest.raises(ContendedError, match=r"within 0\.01 s"):
        await one.enter(claim())
    assert (one.queued, one.rejections["queue_timeout"]) == (0, 1)
    one.leave(held)
    assert one.try_enter(claim())


async def test_bytes_of_those_who_wait_are_bounded() -> None:
    one = admission(max_in_flight_bytes=100)
    assert one.try_enter(claim(size=1))
    crowd = Crowd(one)
    await crowd.comes("large", size=90)
    with pytest.raises(ContendedError, match="hold 90 bytes already"):
        await one.enter(claim(size=11))
    assert one.rejections["too_many_bytes"] == 1


async def test_model_that_nobody_serves_is_refused_at_once() -> None:
    one = admission()
    with pytest.raises(NoCapacityError, match="nobody serves this"):
        await one.enter(claim(route=Anywhere(serves=False)))
    assert (one.queued, one.rejections["no_capacity"]) == (0, 1)


async def test_request_waits_for_an_engine_that_starts() -> None:
    one, route = admission(), Anywhere(serves=False, starting=True)
    crowd = Crowd(one)
    await crowd.comes("early", route=route)
    assert one.queued == 1
    route.serves = True
    one.look_again()
    await asyncio.gather(*crowd.tasks.values())
    assert crowd.served == ["early"]


async def test_engine_that_does_not_start_in_time_is_no_capacity() -> None:
    one = admission(timeout=0.01)
    with pytest.raises(NoCapacityError):
        await one.enter(claim(route=Anywhere(serves=False, starting=True)))
    assert (one.queued, one.rejections["no_capacity"]) == (0, 1)


async def test_those_who_wait_for_a_model_that_nobody_serves_any_more_are_refused_at_once() -> None:
    one, route = admission(), Anywhere()
    crowd = Crowd(one)
    for name in ("runs", "other"):
        await crowd.comes(name)
    await crowd.comes("stranded", route=route)
    route.serves, route.hopeless = False, True
    one.look_again()
    await crowd.tasks["stranded"]
    assert isinstance(crowd.refused["stranded"], NoCapacityError)
    assert await crowd.serve_all() == "runs other"


# --- bounds -----------------------------------------------------------------------------------------------------------


async def test_bytes_in_flight_are_bounded() -> None:
    one, large = admission(max_in_flight=9, max_in_flight_bytes=100), claim(size=90)
    assert one.try_enter(large)
    assert not one.try_enter(claim(size=11))
    assert one.try_enter(claim(size=10))
    assert one.in_flight_bytes == 100


async def test_small_requests_cannot_starve_a_large_one() -> None:
    one = admission(max_in_flight=9, max_in_flight_bytes=100)
    crowd = Crowd(one)
    await crowd.comes("half", size=50)
    await crowd.comes("large", size=90)
    await crowd.comes("small", size=10)
    assert crowd.served == ["half"]
    await crowd.goes("half")
    assert crowd.served == ["half", "large", "small"]


async def test_small_request_goes_on_when_the_large_one_before_it_is_cancelled() -> None:
    one = admission(max_in_flight=9, max_in_flight_bytes=100)
    crowd = Crowd(one)
    await crowd.comes("half", size=50)
    await crowd.comes("large", size=90)
    await crowd.comes("small", size=10)
    crowd.tasks["large"].cancel()
    await crowd.tasks["small"]
    assert crowd.served == ["half", "small"]


async def test_tenant_at_its_bound_does_not_hold_up_others() -> None:
    one = admission(max_in_flight=9, max_in_flight_per_tenant=1)
    crowd = Crowd(one)
    await crowd.comes("a1", "a")
    await crowd.comes("a2", "a")
    await crowd.comes("b1", "b")
    assert crowd.served == ["a1", "b1"]
    await crowd.goes("b1")
    assert crowd.served == ["a1", "b1"]
    await crowd.goes("a1")
    assert crowd.served == ["a1", "b1", "a2"]


async def test_full_engine_does_not_hold_up_requests_for_others() -> None:
    one, narrow = admission(max_in_flight=9), Anywhere(room=0)
    crowd = Crowd(one)
    await crowd.comes("narrow", route=narrow)
    await crowd.comes("same tenant")
    await crowd.comes("other tenant", "u")
    assert crowd.served == ["same tenant", "other tenant"]
    narrow.left = 1
    one.look_again()
    await crowd.tasks["narrow"]
    assert crowd.served[-1] == "narrow"


async def test_room_at_an_engine_is_kept_for_the_one_who_waited_for_it() -> None:
    one, narrow = admission(max_in_flight=9), Anywhere(room=0)
    crowd = Crowd(one)
    await crowd.comes("first", route=narrow)
    narrow.left = 1
    one.look_again()
    assert not one.try_enter(claim("u", route=narrow))
    await crowd.tasks["first"]
    assert (crowd.served, narrow.left) == (["first"], 1)


async def test_room_that_was_kept_for_a_cancelled_request_goes_to_the_next() -> None:
    one, narrow = admission(max_in_flight=9), Anywhere(room=0)
    crowd = Crowd(one)
    await crowd.comes("first", route=narrow)
    await crowd.comes("second", route=narrow)
    narrow.left = 1
    one.look_again()
    crowd.tasks["first"].cancel()
    await crowd.tasks["second"]
    assert (crowd.served, one.in_flight) == (["second"], 1)


def test_bound_that_the_longest_body_could_never_meet_is_refused() -> None:
    with pytest.raises(ValidationError, match="must not be less than `max_body_bytes`"):
        GatewaySettings(max_body_bytes=2**20, max_in_flight_bytes=2**19)


# --- order ------------------------------------------------------------------------------------------------------------


async def test_lower_band_number_goes_first() -> None:
    crowd = Crowd(admission())
    await crowd.comes("runs")
    for name, priority in (("late", 1), ("normal", 0), ("urgent", -1), ("normal2", 0)):
        await crowd.comes(name, priority=priority)
    assert await crowd.serve_all() == "runs urgent normal normal2 late"


async def test_tenants_of_a_band_take_turns_and_each_is_served_in_its_own_order() -> None:
    crowd = Crowd(admission())
    await crowd.comes("runs")
    for name in ("a1", "a2", "a3", "b1", "b2", "c1"):
        await crowd.comes(name, name[0])
    assert await crowd.serve_all() == "runs a1 b1 c1 a2 b2 a3"


async def test_tenant_that_comes_again_takes_the_last_turn() -> None:
    crowd = Crowd(admission())
    await crowd.comes("runs")
    for name in ("a1", "b1", "b2", "c1"):
        await crowd.comes(name, name[0])
    await crowd.goes("runs")
    await crowd.comes("a2", "a")
    assert await crowd.serve_all() == "runs a1 b1 c1 a2 b2"


async def test_newcomer_of_an_earlier_band_passes_those_who_lack_what_all_share() -> None:
    one = admission(max_in_flight=9, max_in_flight_bytes=100)
    crowd = Crowd(one)
    await crowd.comes("half", size=50)
    await crowd.comes("large", size=90)
    await crowd.comes("urgent", size=10, priority=-1)
    assert crowd.served == ["half", "urgent"]


# --- a full queue -----------------------------------------------------------------------------------------------------


async def test_one_tenant_cannot_keep_others_out_of_the_queue() -> None:
    one = admission(max_queue=3)
    crowd = Crowd(one)
    await crowd.comes("runs")
    for name in ("a1", "a2", "a3", "b1", "b2"):
        await crowd.comes(name, name[0])
    assert set(crowd.refused) == {"a3", "b2"}
    assert "this tenant has the most requests" in str(crowd.refused["a3"])
    assert (one.rejections["tenant_share"], one.rejections["queue_full"]) == (1, 1)
    assert await crowd.serve_all() == "runs a1 b1 a2"


async def test_higher_band_takes_the_place_of_the_last_of_a_lower_one() -> None:
    one = admission(max_queue=2)
    crowd = Crowd(one)
    await crowd.comes("runs")
    for name, priority in (("low1", 5), ("low2", 5), ("high", 0), ("lowest", 6)):
        await crowd.comes(name, priority=priority)
    assert set(crowd.refused) == {"low2", "lowest"}
    assert (one.rejections["priority"], one.rejections["queue_full"]) == (1, 1)
    assert await crowd.serve_all() == "runs high low1"


async def test_nobody_is_sent_away_for_a_newcomer_who_does_not_fit_even_so() -> None:
    one = admission(max_in_flight_bytes=100)
    crowd = Crowd(one)
    await crowd.comes("runs", size=1)
    await crowd.comes("low1", priority=5, size=90)
    await crowd.comes("low2", priority=5, size=5)
    await crowd.comes("high", size=50)
    assert set(crowd.refused) == {"high"}
    assert one.queued == 2


# --- cancellation -----------------------------------------------------------------------------------------------------


async def test_cancelled_wait_leaves_the_queue() -> None:
    one, held = admission(), claim()
    assert one.try_enter(held)
    waiting = asyncio.ensure_future(one.enter(claim()))
    await until(lambda: one.queued == 1)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert one.queued == 0
    one.leave(held)
    assert one.try_enter(claim())


async def test_slot_given_to_someone_cancelled_in_the_same_turn_is_not_lost() -> None:
    one, held = admission(), claim()
    assert one.try_enter(held)
    waiting = asyncio.ensure_future(one.enter(claim()))
    await until(lambda: one.queued == 1)
    one.leave(held)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert one.try_enter(claim())


async def test_slot_does_not_go_to_someone_who_was_cancelled_in_the_same_turn() -> None:
    one = admission()
    crowd = Crowd(one)
    for name in ("runs", "left", "next"):
        await crowd.comes(name)
    crowd.tasks["left"].cancel()
    await crowd.goes("runs")
    assert crowd.served == ["runs", "next"]
    assert (one.queued, one.in_flight) == (0, 1)


# --- when to come back ------------------------------------------------------------------------------------------------


async def test_time_to_come_back_follows_the_pace_at_which_slots_come_free() -> None:
    clock = FakeClock()
    one = admission(clock=clock, max_queue=4)
    crowd = Crowd(one)
    for name in "abcde":
        await crowd.comes(name)
    for name in "abc":
        clock.advance(3.0)
        await crowd.goes(name)
    for name in "fgh":
        await crowd.comes(name)
    await crowd.comes("refused")
    assert crowd.refused["refused"].retry_after == pytest.approx(5 * 3.0)


async def test_time_to_come_back_grows_while_nothing_ends_and_is_bounded() -> None:
    clock = FakeClock()
    one = admission(clock=clock, max_queue=2)
    crowd = Crowd(one)
    for name in "abc":
        await crowd.comes(name)
    for name in "ab":
        clock.advance(1.0)
        await crowd.goes(name)
    clock.advance(10.0)
    await crowd.comes("d")
    await crowd.comes("e")
    await crowd.comes("f")
    assert crowd.refused["f"].retry_after == 30.0
    clock.advance(1000.0)
    await crowd.comes("g")
    assert crowd.refused["g"].retry_after == 60.0


async def test_idle_time_does_not_count_for_the_pace() -> None:
    clock = FakeClock()
    one = admission(clock=clock, max_queue=1)
    crowd = Crowd(one)
    for _ in range(3):
        single = claim()
        assert one.try_enter(single)
        clock.advance(1000.0)
        one.leave(single)
    for name in "abc":
        await crowd.comes(name)
    assert crowd.refused["c"].retry_after == 1.0
