"""What is tried again, how often, and which replicas a worker leaves alone."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.errors import (
    BadRequestError,
    ContendedError,
    NoCapacityError,
    RequestError,
    UpstreamFailedError,
    UpstreamTimeoutError,
)
from server.gateway.endpoints import ENDPOINTS
from server.gateway.retry import MAX_RETRY_AFTER, RetryBudget, RetryReason, retry_after_of, retryable
from server.gateway.routing.router import Ask, Router
from server.gateway.sightings import Sightings
from server.units import Seconds
from server.wire import ReplicaSeen
from tests.fakes.clock import FakeClock
from tests.gateway.house import candidate, replica, route, table

WHY: RetryReason = "connect_failed"
LOST = UpstreamFailedError("lost")
LATE = UpstreamTimeoutError("late")


class Worker:
    """Sightings and the router's dictionary, on a clock that stands."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.avoided: dict[str, Seconds] = {}
        self.sightings = Sightings(self.clock, self.avoided)

    def pause(self, replica: str = "a") -> float:
        """How much longer the replica is avoided."""
        return max(0.0, self.avoided.get(replica, 0.0) - self.clock.monotonic())


def allowed(budget: RetryBudget, tries: int) -> int:
    return sum(budget.allow(WHY) for _ in range(tries))


def test_without_requests_the_floor_is_all_there_is() -> None:
    assert allowed(RetryBudget(FakeClock()), 10) == 3


def test_budget_is_a_tenth_of_the_requests_plus_the_floor_and_counts_what_was_spent() -> None:
    clock = FakeClock()
    budget = RetryBudget(clock)
    for _ in range(200):
        budget.request(clock.monotonic())
    assert allowed(budget, 100) == 23
    assert {reason: count for reason, count in budget.spent.items() if count} == {"connect_failed": 23}


def test_budget_fades_with_the_window_and_comes_back_after_it() -> None:
    clock = FakeClock()
    budget = RetryBudget(clock)
    for _ in range(200):
        budget.request(clock.monotonic())
    assert allowed(budget, 100) == 23
    clock.advance(15.0)  # half of it still counts, requests as well as retries
    assert allowed(budget, 100) == 1
    clock.advance(20.0)
    assert allowed(budget, 100) == 3


@given(st.lists(st.tuples(st.floats(0.0, 4.0), st.integers(0, 30), st.integers(0, 10)), max_size=60))
def test_retries_never_exceed_their_share_of_two_windows(steps: list[tuple[float, int, int]]) -> None:
    clock = FakeClock()
    budget = RetryBudget(clock)
    requests: list[float] = []
    retries: list[float] = []
    for wait, some, tries in steps:
        clock.advance(wait)
        for _ in range(some):
            budget.request(clock.monotonic())
            requests.append(clock.monotonic())
        retries += [clock.monotonic()] * allowed(budget, tries)
    for now in retries:
        spent = sum(now - 10 < at <= now for at in retries)
        seen = sum(now - 20 < at <= now for at in requests)
        assert spent <= 2 * 3 + 0.1 * seen + 1


@pytest.mark.parametrize(
    ("failure", "sent", "reason"),
    [
        (LOST, False, "connect_failed"),
        (LATE, False, "connect_failed"),
        (LOST, True, "connection_lost"),
        (LATE, True, None),
        (ContendedError("busy"), False, "connections_busy"),
        (BadRequestError("no"), True, None),
        (NoCapacityError("none"), False, None),
        (429, True, "status_429"),
        (502, True, "status_502"),
        (503, True, "status_503"),
        (504, True, "status_504"),
        (500, True, None),
        (200, True, None),
        (400, True, None),
    ],
)
def test_only_what_another_replica_may_do_better_is_tried_again(
    failure: RequestError | int, sent: bool, reason: str | None
) -> None:
    assert retryable(failure, sent=sent) == reason


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (b"7", 7.0),
        (b" 0 ", 0.0),
        (b"86400", MAX_RETRY_AFTER),
        (b"9" * 400, MAX_RETRY_AFTER),
        (b"Fri, 15 Jan 2027 08:00:30 GMT", 30.0),
        (b"Fri, 15 Jan 2027 07:59:30 GMT", 0.0),
        (b"Fri, 15 Jan 2038 08:00:30 GMT", MAX_RETRY_AFTER),
        (b"-3", None),
        (b"1.5", None),
        (b"soon", None),
        (b"\xff", None),
        (b"", None),
    ],
)
def test_retry_after_is_read_in_both_forms_and_bounded(value: bytes, seconds: float | None) -> None:
    clock = FakeClock(wall=1_800_000_000.0)  # 2027-01-15 08:00:00 UTC
    assert retry_after_of({b"content-type": b"x", b"retry-after": value}, clock) == seconds


def test_answer_without_retry_after_asks_for_nothing() -> None:
    assert retry_after_of({b"content-type": b"x"}, FakeClock()) is None


@given(st.binary(max_size=40))
def test_retry_after_of_nonsense_is_none_or_in_bounds(value: bytes) -> None:
    found = retry_after_of({b"retry-after": value}, FakeClock())
    assert found is None or 0 <= found <= MAX_RETRY_AFTER


def test_replica_that_cannot_be_reached_is_avoided_longer_each_time_and_an_answer_ends_it() -> None:
    worker = Worker()
    pauses = []
    for _ in range(6):
        worker.sightings.failed("a", LOST, sent=False)
        worker.sightings.failed("a", LOST, sent=False)  # of the same moment
        pauses.append(worker.pause())
        worker.clock.advance(worker.pause())
    assert pauses == pytest.approx([1.0, 2.0, 4.0, 8.0, 10.0, 10.0])
    worker.sightings.failed("a", LOST, sent=True)
    worker.sightings.answered("a")
    assert worker.avoided == {}
    worker.sightings.failed("a", LOST, sent=True)
    assert worker.pause() == pytest.approx(1.0)


def test_replica_is_avoided_as_long_as_it_asks_whatever_others_bring() -> None:
    worker = Worker()
    worker.sightings.refused("a", 429, Seconds(5.0))
    worker.sightings.answered("a")
    assert worker.pause() == pytest.approx(5.0)
    worker.clock.advance(4.9)
    worker.sightings.failed("a", LOST, sent=True)
    worker.clock.advance(0.2)
    worker.sightings.failed("a", LOST, sent=True)
    assert worker.pause() == pytest.approx(1.0)
    worker.sightings.answered("a")
    assert worker.avoided == {}


def test_wish_to_be_left_alone_outlives_a_failure_and_its_recovery() -> None:
    worker = Worker()
    worker.sightings.failed("a", LOST, sent=False)
    worker.sightings.refused("a", 503, Seconds(5.0))
    worker.sightings.answered("a")
    assert worker.pause() == pytest.approx(5.0)


def test_refusal_without_a_time_and_slowness_avoid_nobody() -> None:
    worker = Worker()
    worker.sightings.refused("a", 429, None)
    worker.sightings.failed("a", LATE, sent=True)
    worker.sightings.failed("a", ContendedError("busy"), sent=False)
    assert worker.avoided == {}


def test_sightings_are_counted_by_kind_and_taken_once() -> None:
    worker = Worker()
    worker.sightings.answered("a")
    worker.sightings.answered("a")
    worker.sightings.failed("a", LOST, sent=False)
    worker.sightings.failed("a", LOST, sent=True)
    worker.sightings.failed("a", LATE, sent=True)
    worker.sightings.failed("a", LATE, sent=False)
    worker.sightings.refused("b", 503, None)
    worker.sightings.refused("b", 502, None)
    seen = worker.sightings.take()
    assert seen == {
        "a": ReplicaSeen(answered=2, unreachable=2, lost=1, timed_out=1),
        "b": ReplicaSeen(refused=1, broken=1),
    }
    assert [one.failed for one in seen.values()] == [4, 1]
    assert worker.sightings.take() == {}
    again = msgspec.msgpack.decode(msgspec.msgpack.encode(seen), type=dict[str, ReplicaSeen])
    assert again == seen


def test_replicas_that_went_are_forgotten() -> None:
    worker = Worker()
    for name in ("a", "b"):
        worker.sightings.failed(name, LOST, sent=False)
        worker.sightings.refused(name, 429, Seconds(9.0))
    worker.sightings.retain({"b"})
    assert set(worker.avoided) == {"b"}


def test_router_leaves_alone_who_asked_for_it_until_the_time_has_come() -> None:
    clock = FakeClock()
    router = Router(clock)
    names = ("a", "b")
    router.replace(
        table(1, [replica(9000, name=name) for name in names], route("demo", *(candidate(replica=n) for n in names)))
    )
    sightings = Sightings(clock, router.avoided)
    plan = router.route_of("demo", ENDPOINTS[0])
    chosen = []
    for wait in (0.0, 4.9, 0.2):
        clock.advance(wait)
        chosen.append(router.choose(plan, Ask(b"{}")).replica.name)
        if not wait:
            sightings.refused("a", 429, Seconds(5.0))
    assert chosen == ["a", "b", "a"]
