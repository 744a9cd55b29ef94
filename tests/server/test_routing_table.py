"""The routing table: which ids exist, and who serves them."""

from __future__ import annotations

import pytest

from server.config import Config
from server.control.routing_table import Placement, RoutingRules, build_snapshot, check_namespace
from server.errors import ConfigError
from server.fleet import EngineState, Replica
from server.units import Seconds
from server.wire import Snapshot

RULES: dict[str, object] = {"between_replicas": "least_outstanding", "bare_ids": "first"}


def replica(
    name: str, variant: str, *, model: str = "demo", state: EngineState = EngineState.READY, **more: object
) -> Replica:
    facts: dict[str, object] = {
        "name": name,
        "model": model,
        "variant": variant,
        "precision": variant,
        "task": "generate",
        "kind": "vllm",
        "launcher": "local",
        "state": state,
        "since": Seconds(0.0),
        "url": "http://127.0.0.1:9000",
        "api_key": "secret",
        "upstream_model": f"{model}:{variant}",
        "max_model_len": 1024,
        "adapters": frozenset(),
        "restarts": 0,
        "pid": None,
        "device": "cpu",
        "cores": frozenset(),
        "card": None,
        "engine_version": None,
        "problem": None,
        "log_path": None,
        "memory_bytes": None,
        "gauges": None,
    }
    return Replica(**(facts | more))  # type: ignore[arg-type]


def table(replicas: list[Replica], placements: list[Placement] | None = None, **rules: object) -> Snapshot:
    return build_snapshot(1, replicas, placements or [], rules=RoutingRules(**(RULES | rules)))  # type: ignore[arg-type]


def serving(snapshot: Snapshot, public_id: str) -> list[str]:
    return [candidate.replica for candidate in snapshot.routes[public_id].candidates]


def test_bare_id_is_the_first_listed_variant_only() -> None:
    snapshot = table([replica("a", "bf16"), replica("b", "int8"), replica("c", "bf16")])
    assert serving(snapshot, "demo") == ["a", "c"]
    assert serving(snapshot, "demo:int8") == ["b"]
    assert set(snapshot.routes) == {"demo", "demo:bf16", "demo:int8"}


def test_replicas_of_the_first_variant_share_by_the_policy_between_replicas() -> None:
    snapshot = table([replica("a", "bf16"), replica("b", "bf16"), replica("c", "int4")], between_replicas="round_robin")
    assert {name: route.policy for name, route in snapshot.routes.items()} == {
        "demo": "round_robin",
        "demo:bf16": "round_robin",
        "demo:int4": "first",
    }


def test_variants_are_mixed_only_where_a_policy_for_bare_ids_says_so() -> None:
    fleet = [replica("a", "bf16"), replica("b", "int4"), replica("c", "int4")]
    snapshot = table(fleet, bare_ids="weighted", weights={"b": 3.0})
    assert serving(snapshot, "demo") == ["a", "b", "c"]
    assert [one.weight for one in snapshot.routes["demo"].candidates] == [1.0, 3.0, 1.0]
    assert snapshot.routes["demo"].policy == "weighted"
    assert snapshot.routes["demo:int4"].policy == "least_outstanding"
    assert [one.answer_model for one in snapshot.routes["demo"].candidates] == ["demo:bf16", "demo:int4", "demo:int4"]


def test_card_of_an_id_that_mixes_variants_says_only_what_is_true_of_all() -> None:
    fleet = [replica("a", "bf16", max_model_len=None), replica("b", "int4")]
    assert table(fleet, bare_ids="weighted").routes["demo"].card == {
        "base_model": "demo",
        "task": "generate",
        "max_model_len": 1024,
    }


def test_id_that_mixes_variants_leaves_out_those_of_another_task() -> None:
    fleet = [replica("a", "bf16"), replica("b", "int4", task="embed")]
    assert serving(table(fleet, bare_ids="round_robin"), "demo") == ["a"]


def test_bare_adapter_follows_the_policy_for_bare_ids() -> None:
    has = frozenset({"json"})
    placement = Placement(name="json", model="demo", engines=frozenset({"a", "b"}))
    fleet = [replica("a", "bf16", adapters=has), replica("b", "int4", adapters=has)]
    mixed = table(fleet, [placement], bare_ids="adapter_affinity").routes
    assert [one.replica for one in mixed["json"].candidates] == ["a", "b"]
    assert (mixed["json"].policy, mixed["json"].card["parent"]) == ("adapter_affinity", "demo")
    assert mixed["json:int4"].card["parent"] == "demo:int4"


@pytest.mark.parametrize("state", EngineState)
def test_route_says_whether_one_of_its_replicas_will_be_ready_soon(state: EngineState) -> None:
    soon = state in (EngineState.PENDING, EngineState.STARTING)
    assert table([replica("a", "bf16", state=state)]).routes["demo:bf16"].starting is soon


def test_bound_of_an_engine_stands_at_its_address() -> None:
    snapshot = table([replica("a", "bf16"), replica("b", "bf16")], max_in_flight={"a": 3, "b": None})
    assert [one.max_in_flight for one in snapshot.replicas.values()] == [3, None]


def test_rules_are_those_of_the_configuration() -> None:
    engine = {"model": "demo", "precision": "int4", "url": "http://x:1"}
    config = Config.model_validate(
        {
            "engines": [{"name": "a", **engine, "weight": 2, "max_in_flight": 9}, {"name": "b", **engine}],
            "routing": {"between_replicas": "weighted"},
        }
    )
    assert RoutingRules.of(config) == RoutingRules(
        between_replicas="weighted",
        bare_ids="first",
        weights={"a": 2.0, "b": 1.0},
        max_in_flight={"a": 9, "b": None},
    )


def test_local_engine_answers_to_the_bare_id_so_that_no_body_is_spliced() -> None:
    snapshot = table([replica("a", "bf16")])
    assert snapshot.routes["demo"].candidates[0].upstream_model == "demo"
    assert snapshot.routes["demo"].candidates[0].answer_model == "demo:bf16"


def test_engine_elsewhere_keeps_its_own_name_and_its_answers_are_renamed() -> None:
    far = replica("far", "fp8", model="big", launcher="external", upstream_model="org/big", url="https://gpu/x")
    snapshot = table([far])
    assert snapshot.routes["big"].candidates[0].upstream_model == "org/big"
    address = snapshot.replicas["far"]
    assert (address.host, address.port, address.tls, address.path_prefix) == ("gpu", 443, True, "/x")
    assert address.rewrite_model


def test_adapter_is_listed_only_when_every_replica_that_should_have_it_has_it() -> None:
    has, lacks = frozenset({"json"}), frozenset[str]()
    placement = Placement(name="json", model="demo", engines=frozenset({"a", "b"}))
    half = table([replica("a", "bf16", adapters=has), replica("b", "bf16", adapters=lacks)], [placement])
    assert not half.routes["json:bf16"].listed
    assert serving(half, "json:bf16") == ["a"]
    whole = table([replica("a", "bf16", adapters=has), replica("b", "bf16", adapters=has)], [placement])
    assert whole.routes["json:bf16"].listed
    assert whole.routes["json"].candidates[0].upstream_model == "json:bf16"


def test_bare_adapter_is_on_the_first_variant_that_can_take_it() -> None:
    placement = Placement(name="json", model="demo", engines=frozenset({"b"}))
    snapshot = table([replica("a", "int8"), replica("b", "int4", adapters=frozenset({"json"}))], [placement])
    assert serving(snapshot, "json") == ["b"]
    assert "json:int8" not in snapshot.routes


def test_engine_that_is_not_ready_keeps_its_id_but_is_neither_healthy_nor_listed() -> None:
    snapshot = table([replica("a", "bf16", state=EngineState.STARTING)])
    assert not snapshot.replicas["a"].healthy
    assert not snapshot.routes["demo:bf16"].listed


@pytest.mark.parametrize(
    ("state", "healthy", "bound"),
    [
        (EngineState.SUSPECT, True, 8),
        (EngineState.HALF_OPEN, True, 1),
        (EngineState.UNHEALTHY, False, 8),
    ],
)
def test_suspected_replica_serves_as_before_and_one_on_trial_gets_one_request_at_a_time(
    state: EngineState, healthy: bool, bound: int
) -> None:
    snapshot = table([replica("a", "bf16", state=state)], max_in_flight={"a": 8})
    assert (snapshot.replicas["a"].healthy, snapshot.replicas["a"].max_in_flight) == (healthy, bound)
    assert snapshot.routes["demo"].listed is healthy


def test_unknown_facts_are_left_out_of_the_card() -> None:
    card = table([replica("a", "bf16", max_model_len=None)]).routes["demo"].card
    assert "max_model_len" not in card
    assert "parameters" not in card
    assert card["precision"] == "bf16"


@pytest.mark.parametrize(
    ("variants", "adapters"),
    [
        ([("demo", "int4"), ("demo:int4", "x")], []),
        ([("demo", "int4")], [("demo:int4", "demo")]),
        ([("demo", "int4")], [("json", "demo"), ("json:int4", "demo")]),
    ],
)
def test_id_with_two_meanings_is_refused(variants: list[tuple[str, str]], adapters: list[tuple[str, str]]) -> None:
    with pytest.raises(ConfigError, match="would mean both"):
        check_namespace(variants, adapters)


def test_names_with_slashes_and_colons_are_ids_like_any_other() -> None:
    check_namespace([("org/model:v2", "int4")], [("team/json", "org/model:v2")])
    assert "org/model:v2:int4" in table([replica("a", "int4", model="org/model:v2")]).routes
