"""From a public id to a replica."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from server.errors import BadRequestError, ContendedError, NoCapacityError, UnknownModelError
from server.gateway.endpoints import ENDPOINTS, endpoints_for
from server.gateway.routing import POLICIES, Ask
from server.gateway.routing.router import Router
from server.units import Seconds
from tests.fakes.clock import FakeClock
from tests.gateway.house import candidate, replica, route, table

CHAT = ENDPOINTS[0]
NAMES = ["a", "b", "c"]
ASK = Ask(b"{}")


def router(
    policy: str = "first", *, clock: FakeClock | None = None, bounds: dict[str, int] | None = None, **health: bool
) -> Router:
    one = Router(clock or FakeClock())
    replicas = [
        replica(9000, name=name, healthy=health.get(name, True), max_in_flight=(bounds or {}).get(name))
        for name in NAMES
    ]
    one.replace(table(1, replicas, route("demo", *(candidate(replica=name) for name in NAMES), policy=policy)))
    return one


def chosen(one: Router, times: int = 1, avoid: frozenset[str] = frozenset()) -> list[str]:
    plan = one.route_of("demo", CHAT)
    return [one.choose(plan, ASK, avoid=avoid).replica.name for _ in range(times)]


@pytest.mark.parametrize("policy", POLICIES)
def test_every_policy_goes_on_over_a_new_snapshot(policy: str) -> None:
    one = router(policy)
    chosen(one, 2)
    assert one.snapshot is not None
    one.replace(one.snapshot)
    assert set(chosen(one, 3)) <= set(NAMES)


def test_policy_keeps_its_memory_over_snapshots_until_another_is_asked_for() -> None:
    one = router("round_robin")
    before = chosen(one, 2)
    assert one.snapshot is not None
    one.replace(one.snapshot)
    assert before + chosen(one, 2) == ["a", "b", "c", "a"]
    other = msgspec.structs.replace(one.snapshot.routes["demo"], policy="first")
    one.replace(msgspec.structs.replace(one.snapshot, routes={"demo": other}))
    assert chosen(one, 2) == ["a", "a"]


def test_plan_that_somebody_waits_with_follows_the_newest_snapshot() -> None:
    one = router(a=False)
    plan = one.route_of("demo", CHAT)
    assert one.choose(plan, ASK).replica.name == "b"
    one.replace(router(b=False).snapshot)  # type: ignore[arg-type]
    assert one.choose(plan, ASK).replica.name == "a"
    one.replace(table(2, []))
    with pytest.raises(NoCapacityError, match="no engine is assigned"):
        one.choose(plan, ASK)


# --- who is chosen ----------------------------------------------------------------------------------------------------


def test_single_healthy_replica_is_chosen_whatever_is_said_against_it() -> None:
    one = router(a=False, c=False)
    one.avoided["b"] = Seconds(2000.0)
    assert chosen(one, 2) == ["b", "b"]


def test_replicas_that_this_request_has_tried_are_not_chosen_again() -> None:
    one = router()
    assert chosen(one, avoid=frozenset("a")) == ["b"]
    assert chosen(one, avoid=frozenset("ab")) == ["c"]
    with pytest.raises(NoCapacityError, match="was tried"):
        chosen(one, avoid=frozenset("abc"))


def test_single_replica_that_was_tried_is_not_chosen_again() -> None:
    with pytest.raises(NoCapacityError, match="was tried"):
        chosen(router(a=False, b=False), avoid=frozenset("c"))


def test_avoided_replica_is_left_alone_until_its_time_has_passed() -> None:
    clock = FakeClock()
    one = router(clock=clock)
    one.avoided["a"] = Seconds(clock.monotonic() + 5)
    assert chosen(one) == ["b"]
    clock.advance(5)
    assert chosen(one) == ["a"]
    assert one.avoided == {}


def test_avoided_replicas_are_taken_when_there_is_no_other() -> None:
    one = router(c=False)
    one.avoided |= dict.fromkeys("ab", Seconds(2000.0))
    assert chosen(one) == ["a"]
    assert chosen(one, avoid=frozenset("a")) == ["b"]


def test_replica_at_its_bound_is_passed_over() -> None:
    one = router(bounds={"a": 1, "b": 2})
    one.sent("a")
    assert chosen(one) == ["b"]
    one.avoided["c"] = Seconds(2000.0)
    one.sent("b")
    assert chosen(one) == ["b"]
    one.sent("b")
    assert chosen(one) == ["c"]
    one.ended("a")
    assert chosen(one) == ["a"]


def test_all_at_their_bounds_is_contention() -> None:
    one = router(bounds={"a": 1}, b=False, c=False)
    one.sent("a")
    with pytest.raises(ContendedError, match="max_in_flight") as caught:
        chosen(one)
    assert caught.value.retry_after == 1.0


def test_whoever_waits_for_room_is_told_when_there_may_be_some() -> None:
    one, told = router(bounds={"a": 1}), []
    one.on_room = lambda: told.append("look again")
    for name in "ab":
        one.sent(name)
        one.ended(name)
    assert told == ["look again"]
    assert one.snapshot is not None
    one.replace(one.snapshot)
    assert len(told) == 2


def test_outstanding_requests_are_counted_by_replica() -> None:
    one = router()
    one.sent("a")
    one.sent("a")
    one.sent("b")
    assert one.outstanding == {"a": 2, "b": 1}
    one.ended("a")
    one.ended("b")
    assert one.outstanding == {"a": 1}


# --- who cannot be served ---------------------------------------------------------------------------------------------


def test_unknown_id_is_refused_with_near_matches_and_how_to_list() -> None:
    with pytest.raises(UnknownModelError, match=r"no model `dmeo`.*Did you mean `demo`.*GET /v1/models"):
        router().route_of("dmeo", CHAT)


def test_model_of_another_task_is_refused_with_the_endpoint_that_fits() -> None:
    one = Router(FakeClock())
    one.replace(table(1, [replica(1)], route("vectors", candidate(), task="embed")))
    with pytest.raises(BadRequestError, match=r"`embed`.*/v1/embeddings"):
        one.route_of("vectors", CHAT)


def test_known_id_without_healthy_replica_names_the_engines_and_a_time() -> None:
    one = router(a=False, b=False, c=False)
    with pytest.raises(NoCapacityError, match=r"not ready: a, b, c") as caught:
        chosen(one)
    assert caught.value.retry_after is not None
    assert one.route_of("demo", CHAT).hopeless


def test_route_with_a_starting_replica_is_worth_a_wait() -> None:
    one = Router(FakeClock())
    one.replace(table(1, [replica(1, healthy=False)], route("demo", candidate(), starting=True)))
    plan = one.route_of("demo", CHAT)
    assert (plan.serves, plan.hopeless, plan.room()) == (False, False, None)


def test_candidate_whose_replica_is_unknown_is_not_chosen() -> None:
    one = Router(FakeClock())
    one.replace(table(1, [], route("demo", candidate())))
    with pytest.raises(NoCapacityError):
        chosen(one)


def test_before_the_first_snapshot_nothing_can_be_served() -> None:
    with pytest.raises(NoCapacityError, match="starting"):
        Router(FakeClock()).route_of("demo", CHAT)


def test_unknown_policy_falls_back_to_the_first_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    assert chosen(router("fastest_horse"), 2) == ["a", "a"]
    assert "fastest_horse" in caplog.text


@pytest.mark.parametrize("task", ["generate", "embed", "score"])
def test_every_task_has_endpoints(task: str) -> None:
    assert endpoints_for(task)


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda one: one.name)
def test_every_endpoint_reads_a_body_with_what_it_needs(endpoint: Any) -> None:
    body = {name: [] for name in endpoint.needs} | {"model": "demo"}
    assert endpoint.grammar.parse(json.dumps(body).encode()).model == "demo"
