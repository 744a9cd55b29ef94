"""From a public id to a replica."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from server.errors import BadRequestError, NoCapacityError, UnknownModelError
from server.gateway.endpoints import ENDPOINTS, endpoints_for
from server.gateway.routing import POLICIES
from server.gateway.routing.router import Router
from tests.gateway.house import candidate, replica, route, table

CHAT = ENDPOINTS[0]
NAMES = ["a", "b", "c"]


def router(policy: str = "first", **health: bool) -> Router:
    one = Router()
    replicas = [replica(9000, name=name, healthy=health.get(name, True)) for name in NAMES]
    one.replace(table(1, replicas, route("demo", *(candidate(replica=name) for name in NAMES), policy=policy)))
    return one


def chosen(one: Router, times: int) -> list[str]:
    return [one.choose("demo", CHAT).replica.name for _ in range(times)]


@pytest.mark.parametrize("policy", POLICIES)
def test_every_policy_picks_a_healthy_candidate(policy: str) -> None:
    assert set(chosen(router(policy, a=False, c=False), 5)) == {"b"}


@pytest.mark.parametrize("policy", POLICIES)
def test_every_policy_goes_on_over_a_new_snapshot(policy: str) -> None:
    one = router(policy)
    chosen(one, 2)
    assert one.snapshot is not None
    one.replace(one.snapshot)
    assert set(chosen(one, 3)) <= set(NAMES)


def test_first_keeps_to_the_first() -> None:
    assert chosen(router("first"), 3) == ["a", "a", "a"]


def test_round_robin_takes_turns_over_snapshots() -> None:
    one = router("round_robin")
    before = chosen(one, 2)
    assert one.snapshot is not None
    one.replace(one.snapshot)
    assert before + chosen(one, 2) == ["a", "b", "c", "a"]


def test_least_outstanding_goes_where_least_runs_and_takes_turns_among_equals() -> None:
    one = router("least_outstanding")
    with one.one_more_at("a"), one.one_more_at("b"):
        assert chosen(one, 2) == ["c", "c"]
    assert one.outstanding == {}
    assert chosen(one, 3) == ["a", "b", "c"]


def test_count_at_a_replica_falls_when_the_block_fails() -> None:
    one = router()
    with contextlib.suppress(RuntimeError), one.one_more_at("a"):
        assert one.outstanding == {"a": 1}
        raise RuntimeError
    assert one.outstanding == {}


def test_unknown_id_is_refused_with_near_matches_and_how_to_list() -> None:
    with pytest.raises(UnknownModelError, match=r"no model `dmeo`.*Did you mean `demo`.*GET /v1/models"):
        router().choose("dmeo", CHAT)


def test_model_of_another_task_is_refused_with_the_endpoint_that_fits() -> None:
    one = Router()
    one.replace(table(1, [replica(1)], route("vectors", candidate(), task="embed")))
    with pytest.raises(BadRequestError, match=r"`embed`.*/v1/embeddings"):
        one.choose("vectors", CHAT)


def test_known_id_without_healthy_replica_names_the_engines_and_a_time() -> None:
    with pytest.raises(NoCapacityError, match=r"not ready: a, b, c") as caught:
        router(a=False, b=False, c=False).choose("demo", CHAT)
    assert caught.value.retry_after is not None


def test_candidate_whose_replica_is_unknown_is_not_chosen() -> None:
    one = Router()
    one.replace(table(1, [], route("demo", candidate())))
    with pytest.raises(NoCapacityError):
        one.choose("demo", CHAT)


def test_before_the_first_snapshot_nothing_can_be_served() -> None:
    with pytest.raises(NoCapacityError, match="starting"):
        Router().choose("demo", CHAT)


def test_unknown_policy_falls_back_to_the_first_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    assert chosen(router("fastest_horse"), 2) == ["a", "a"]
    assert "fastest_horse" in caplog.text


@pytest.mark.parametrize("task", ["generate", "embed", "score"])
def test_every_task_has_endpoints(task: str) -> None:
    assert endpoints_for(task)


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda one: one.name)
def test_every_endpoint_decodes_a_body_with_what_it_needs(endpoint: Any) -> None:
    assert endpoint.decoder.decode(b'{"model": "demo", "messages": [], "prompt": "x", "input": "x"}').model == "demo"
