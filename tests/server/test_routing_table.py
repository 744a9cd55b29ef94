"""The routing table: which ids exist, and who serves them."""

from __future__ import annotations

import pytest

from server.control.routing_table import Placement, build_snapshot, check_namespace
from server.errors import ConfigError
from server.fleet import EngineState, Replica
from server.units import Seconds
from server.wire import Snapshot


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


def table(replicas: list[Replica], placements: list[Placement] | None = None) -> Snapshot:
    return build_snapshot(1, replicas, placements or [], policy="least_outstanding")


def serving(snapshot: Snapshot, public_id: str) -> list[str]:
    return [candidate.replica for candidate in snapshot.routes[public_id].candidates]


def test_bare_id_is_the_first_listed_variant_only() -> None:
    snapshot = table([replica("a", "bf16"), replica("b", "int8"), replica("c", "bf16")])
    assert serving(snapshot, "demo") == ["a", "c"]
    assert serving(snapshot, "demo:int8") == ["b"]
    assert set(snapshot.routes) == {"demo", "demo:bf16", "demo:int8"}


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
