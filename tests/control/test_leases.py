"""Limits of keys over several workers: never less than the limit for want of luck, and what clients are told."""

from __future__ import annotations

import pytest

from server.errors import RateLimitedError, UnauthenticatedError
from server.gateway.limits import FREE, Charge
from server.wire import LEASE_PATIENCE
from tests.fakes.limited_fleet import LimitedFleet, grant, outcome, turn

pytestmark = pytest.mark.anyio


async def test_all_of_the_limit_and_not_one_more_can_be_used_from_one_worker_of_many() -> None:
    key = grant(requests_per_minute=100)
    fleet = LimitedFleet(key, workers=4)
    seen = [await outcome(fleet, 2, key) for _ in range(105)]
    assert [isinstance(one, Charge) for one in seen] == [True] * 100 + [False] * 5


async def test_what_other_workers_hold_unused_is_given_to_the_one_that_needs_it() -> None:
    key = grant(requests_per_minute=400)
    fleet = LimitedFleet(key, workers=4)
    for worker in range(4):  # each holds a lease of ten
        assert isinstance(await outcome(fleet, worker, key), Charge)
    seen = [await outcome(fleet, 0, key) for _ in range(396)]
    assert all(isinstance(one, Charge) for one in seen)
    assert isinstance(await outcome(fleet, 0, key), RateLimitedError)


async def test_one_seat_goes_from_worker_to_worker() -> None:
    key = grant(concurrency=1)
    fleet = LimitedFleet(key, workers=3)
    for worker in (0, 1, 2, 1, 0):
        charge = await outcome(fleet, worker, key)
        assert isinstance(charge, Charge)
        fleet.timers.advance(0.02)
        assert isinstance(await outcome(fleet, (worker + 1) % 3, key), RateLimitedError)
        charge.settle(1, 1)
        fleet.timers.advance(LEASE_PATIENCE)


async def test_seat_that_comes_free_while_another_worker_waits_goes_there() -> None:
    key = grant(concurrency=1)
    fleet = LimitedFleet(key, workers=2)
    first = await outcome(fleet, 0, key)
    assert isinstance(first, Charge)
    second = fleet.workers[1].ask(key, 4)
    await turn()
    fleet.workers[1].carry_up()  # the control plane asks worker 0 to give back …
    first.settle(1, 1)  # … which ends its request before it hears that
    await fleet.settle()
    assert isinstance(await second, Charge)


async def test_refusal_says_when_to_come_back_and_that_is_true() -> None:
    key = grant(requests_per_minute=60)
    fleet = LimitedFleet(key)
    for _ in range(60):
        assert isinstance(await outcome(fleet, 0, key), Charge)
    refused = await outcome(fleet, 0, key)
    assert isinstance(refused, RateLimitedError)
    assert refused.retry_after == pytest.approx(1.0)
    assert dict(refused.headers) == {
        b"x-ratelimit-limit-requests": b"60",
        b"x-ratelimit-remaining-requests": b"0",
        b"x-ratelimit-reset-requests": b"1m0s",
        b"retry-after-ms": b"1000",
    }
    fleet.timers.advance(0.9)
    assert isinstance(await outcome(fleet, 0, key), RateLimitedError)
    fleet.timers.advance(0.11)
    assert isinstance(await outcome(fleet, 0, key), Charge)
    assert fleet.workers[0].limits.rejections == {
        "rate_limit_requests": 2, "rate_limit_tokens": 0, "concurrency": 0,
    }  # fmt: skip


async def test_headers_count_down() -> None:
    key = grant(requests_per_minute=1200, tokens_per_minute=60_000)
    fleet = LimitedFleet(key)
    first = await outcome(fleet, 0, key, size=4000)
    assert isinstance(first, Charge)
    assert dict(first.headers) == {
        b"x-ratelimit-limit-requests": b"1200",
        b"x-ratelimit-remaining-requests": b"1199",
        b"x-ratelimit-reset-requests": b"50ms",
        b"x-ratelimit-limit-tokens": b"60000",
        b"x-ratelimit-remaining-tokens": b"59000",
        b"x-ratelimit-reset-tokens": b"1s",
    }


async def test_tokens_beyond_the_estimate_are_a_debt_that_all_workers_pay() -> None:
    key = grant(tokens_per_minute=6000)
    fleet = LimitedFleet(key, workers=2)
    charge = await outcome(fleet, 0, key, size=400)
    assert isinstance(charge, Charge)
    charge.settle(1000, 11_000)
    await fleet.settle()
    refused = await outcome(fleet, 1, key, size=4)
    assert isinstance(refused, RateLimitedError)
    assert refused.retry_after == pytest.approx(60.0, abs=2)
    fleet.timers.advance(62)
    assert isinstance(await outcome(fleet, 1, key, size=4), Charge)


async def test_tokens_that_were_not_used_come_back() -> None:
    key = grant(tokens_per_minute=1000)
    fleet = LimitedFleet(key, workers=2)
    for worker in (0, 1) * 20:
        charge = await outcome(fleet, worker, key, size=3600)
        assert isinstance(charge, Charge)
        charge.settle(0, 0)
        await fleet.settle()


async def test_estimate_stands_where_nobody_knows_the_usage() -> None:
    key = grant(tokens_per_minute=1000)
    fleet = LimitedFleet(key)
    charge = await outcome(fleet, 0, key, size=3600)
    assert isinstance(charge, Charge)
    charge.settle(None, None)
    await fleet.settle()
    assert isinstance(await outcome(fleet, 0, key, size=3600), RateLimitedError)


async def test_request_larger_than_the_limit_passes_when_the_bucket_is_full() -> None:
    key = grant(tokens_per_minute=100)
    fleet = LimitedFleet(key)
    assert isinstance(await outcome(fleet, 0, key, size=4_000_000), Charge)
    assert isinstance(await outcome(fleet, 0, key, size=4), RateLimitedError)


async def test_key_without_limits_is_charged_nothing_and_asks_nobody() -> None:
    key = grant()
    fleet = LimitedFleet(key)
    assert await outcome(fleet, 0, key) is FREE
    FREE.settle(5, 5)
    assert fleet.workers[0].told == 0


async def test_usual_request_does_not_go_over_the_bus() -> None:
    key = grant(requests_per_minute=40_000, tokens_per_minute=40_000_000, concurrency=64)
    fleet = LimitedFleet(key)
    for _ in range(1000):
        charge = await outcome(fleet, 0, key, size=400)
        assert isinstance(charge, Charge)
        charge.settle(100, 50)
    assert fleet.workers[0].told < 10


async def test_mute_control_plane_holds_a_request_a_quarter_second_and_then_the_workers_share_decides() -> None:
    key = grant(requests_per_minute=120)
    fleet = LimitedFleet(key, workers=2)
    waiting = fleet.workers[0].ask(key, 4)
    await turn()
    fleet.timers.advance(LEASE_PATIENCE - 0.01)
    await turn()
    assert not waiting.done()
    fleet.timers.advance(0.02)
    with pytest.raises(RateLimitedError):  # nothing was gained of the share yet
        await waiting
    fleet.timers.advance(10)
    admitted = 0
    for _ in range(20):
        try:
            await fleet.workers[0].ask(key, 4)
            admitted += 1
        except RateLimitedError:
            pass
    assert admitted == 10  # 120 a minute, half of it this worker's, for ten seconds
    await fleet.settle()  # it speaks again, and hears of the ten
    seen = [await outcome(fleet, 1, key) for _ in range(130)]
    assert sum(isinstance(one, Charge) for one in seen) == pytest.approx(110, abs=3)


async def test_worker_without_a_control_plane_serves_its_share_and_its_seats() -> None:
    key = grant(requests_per_minute=600, concurrency=4)
    fleet = LimitedFleet(key, workers=2)
    fleet.workers[0].unlink()
    fleet.timers.advance(60)
    charges = [await fleet.workers[0].ask(key, 4) for _ in range(2)]
    with pytest.raises(RateLimitedError):
        await fleet.workers[0].ask(key, 4)
    charges[0].settle(1, 1)
    assert await fleet.workers[0].ask(key, 4)


async def test_new_control_plane_hears_of_the_seats_that_are_taken() -> None:
    key = grant(concurrency=2)
    fleet = LimitedFleet(key, workers=2)
    for worker in (0, 1):
        assert isinstance(await outcome(fleet, worker, key), Charge)
    fleet.restart_control()
    await fleet.settle()
    assert isinstance(await outcome(fleet, 1, key), RateLimitedError)


async def test_debt_of_a_time_without_a_control_plane_is_told_when_there_is_one() -> None:
    key = grant(tokens_per_minute=100)
    fleet = LimitedFleet(key)
    charge = await outcome(fleet, 0, key)
    assert isinstance(charge, Charge)
    fleet.workers[0].unlink()
    charge.settle(1000, 0)
    fleet.workers[0].link()
    await fleet.settle()
    assert isinstance(await outcome(fleet, 0, key), RateLimitedError)
    fleet.timers.advance(11 * 60)
    assert isinstance(await outcome(fleet, 0, key), Charge)


async def test_seats_of_a_worker_that_died_are_free() -> None:
    key = grant(concurrency=1)
    fleet = LimitedFleet(key, workers=2)
    assert isinstance(await outcome(fleet, 0, key), Charge)
    fleet.workers[0].unlink()
    assert isinstance(await outcome(fleet, 1, key), Charge)


async def test_client_that_leaves_while_it_waits_is_charged_nothing() -> None:
    key = grant(concurrency=1, requests_per_minute=2)
    fleet = LimitedFleet(key)
    leaving = fleet.workers[0].ask(key, 4)
    await turn()
    leaving.cancel()
    await fleet.settle()
    for _ in range(2):
        charge = await outcome(fleet, 0, key)
        assert isinstance(charge, Charge)
        charge.settle(1, 1)


async def test_client_that_leaves_in_the_turn_in_which_it_is_served_gives_its_seat_back() -> None:
    key = grant(concurrency=1)
    fleet = LimitedFleet(key)
    leaving = fleet.workers[0].ask(key, 4)
    await turn()
    fleet.workers[0].carry_up()
    fleet.workers[0].carry_down()  # served, but it does not know yet
    leaving.cancel()
    await fleet.settle()
    assert leaving.cancelled()
    assert isinstance(await outcome(fleet, 0, key), Charge)


async def test_request_that_waits_when_its_key_is_revoked_is_refused() -> None:
    key = grant(requests_per_minute=2)
    fleet = LimitedFleet(key)
    waiting = fleet.workers[0].ask(key, 4)
    await turn()
    fleet.workers[0].limits.replace({})
    with pytest.raises(UnauthenticatedError):
        await waiting
