"""The contract of every routing policy, and what each one is for."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from random import Random
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.config import load_config
from server.config.settings import PolicyName
from server.errors import ConfigError
from server.gateway.endpoints import ENDPOINTS
from server.gateway.routing import POLICIES, Ask, RoutingPolicy
from server.gateway.routing.adapter_affinity import AdapterAffinity
from server.gateway.routing.prefix_affinity import PrefixAffinity
from server.gateway.routing.router import Router
from server.wire import Candidate
from tests.fakes.clock import FakeClock
from tests.gateway.house import candidate, replica, route, table

NOTHING: Mapping[str, int] = {}


def made(policy: str, seed: int = 7) -> RoutingPolicy:
    return POLICIES[policy](Random(seed))


def replicas(names: Iterable[str], *, adapter: str = "none", **weights: float) -> list[Candidate]:
    return [candidate(replica=name, adapter=adapter, weight=weights.get(name, 1.0)) for name in names]


def ask(text: str = "Hi", **members: object) -> Ask:
    return Ask(json.dumps({"model": "demo", **members, "messages": [{"role": "user", "content": text}]}).encode())


def names(policy: RoutingPolicy, among: list[Candidate], asks: Iterable[Ask], **outstanding: int) -> str:
    return "".join(policy.choose(among, outstanding, one).replica for one in asks)


def serve(policy: RoutingPolicy, among: list[Candidate], asks: Iterable[Ask], *, at_once: int) -> Counter[str]:
    """Requests of equal length, `at_once` of them running at a time; how many each replica got."""
    outstanding: Counter[str] = Counter()
    running: list[str] = []
    served: Counter[str] = Counter()
    for one in asks:
        name = policy.choose(among, outstanding, one).replica
        served[name] += 1
        outstanding[name] += 1
        running.append(name)
        if len(running) == at_once:
            outstanding[running.pop(0)] -= 1
    return served


# --- the contract -----------------------------------------------------------------------------------------------------


def test_configuration_knows_exactly_the_policies_that_there_are() -> None:
    assert get_args(PolicyName) == tuple(POLICIES)


@pytest.mark.parametrize("setting", ["between_replicas", "bare_ids"])
def test_unknown_policy_in_the_configuration_is_an_error_that_lists_those_that_there_are(
    setting: str, tmp_path: Path
) -> None:
    file = tmp_path / "wattgate.yaml"
    engine = {"name": "a", "model": "demo", "precision": "int4", "url": "http://127.0.0.1:1"}
    file.write_text(json.dumps({"engines": [engine], "routing": {setting: "fastest_horse"}}))
    with pytest.raises(ConfigError) as caught:
        load_config(file, {})
    assert f"routing.{setting}: found 'fastest_horse'" in str(caught.value)
    assert all(f"'{policy}'" in str(caught.value) for policy in POLICIES)


LOADS = st.dictionaries(st.sampled_from("abcde"), st.integers(0, 40))


@pytest.mark.parametrize("policy", POLICIES)
@settings(deadline=None, max_examples=40)
@given(
    steps=st.lists(
        st.tuples(st.sets(st.sampled_from("abcde"), min_size=1), LOADS, st.binary(max_size=600)), max_size=30
    )
)
def test_choice_is_one_of_the_candidates_whatever_is_sent_and_whoever_comes_and_goes(policy: str, steps: list) -> None:
    one = made(policy)
    for members, loads, body in steps:
        among = replicas(sorted(members), adapter="json")
        assert one.choose(among, loads, Ask(body)) in among


@pytest.mark.parametrize("policy", POLICIES)
def test_same_seed_and_requests_give_the_same_choices(policy: str) -> None:
    among = replicas("abcd", adapter="json", a=3)
    asks = [ask(f"{index % 5} {'x' * 300}") for index in range(50)]
    runs = {names(made(policy), among, asks, a=1) for _ in range(3)}
    assert len(runs) == 1


@pytest.mark.parametrize("policy", POLICIES)
def test_unhealthy_replica_gets_nothing(policy: str) -> None:
    router = Router(FakeClock(), random=Random(1))
    members = [replica(1, name=name, healthy=name != "b") for name in "abc"]
    router.replace(table(1, members, route("demo", *replicas("abc"), policy=policy)))
    plan = router.route_of("demo", ENDPOINTS[0])
    assert {router.choose(plan, ask(str(index))).replica.name for index in range(50)} <= {"a", "c"}


@pytest.mark.parametrize("policy", [name for name in POLICIES if name != "first"])
@pytest.mark.parametrize("at_once", [8, 64])
def test_different_requests_of_equal_replicas_are_spread_within_bounds(policy: str, at_once: int) -> None:
    """No replica gets more than 1.5 times its share: requests without a common beginning, without an adapter."""
    asks = [ask(f"{index} {'x' * 300}") for index in range(1000)]
    served = serve(made(policy), replicas("abcd"), asks, at_once=at_once)
    assert max(served.values()) <= 1.5 * 250
    assert min(served.values()) >= 250 / 1.5


@pytest.mark.parametrize("policy", [name for name in POLICIES if name != "first"])
def test_one_and_the_same_request_does_not_overload_one_replica(policy: str) -> None:
    """Even what has an affinity yields: no replica is left with more than 4 and twice the least."""
    outstanding: Counter[str] = Counter()
    one, among = made(policy), replicas("abcd", adapter="json")
    for _ in range(400):
        outstanding[one.choose(among, outstanding, ask("y" * 400)).replica] += 1
    assert max(outstanding.values()) <= 4 + 2 * min(outstanding.values()) + 1


@pytest.mark.parametrize("policy", POLICIES)
def test_memory_is_bounded_whatever_is_sent_and_whoever_comes_and_goes(policy: str) -> None:
    one = made(policy)
    for index in range(2500):
        among = replicas([f"r{index}", f"r{index + 1}", f"r{index + 2}"], adapter="json")
        one.choose(among, NOTHING, ask(f"{index} {'z' * 1100}"))
    held = [value for value in vars(one).values() if hasattr(value, "__len__")]
    assert sum(len(value) for value in held) <= 8192


# --- each of them -----------------------------------------------------------------------------------------------------


def test_first_keeps_to_the_first() -> None:
    assert names(made("first"), replicas("abc"), [ask()] * 3, a=9) == "aaa"


def test_round_robin_takes_turns_whatever_runs() -> None:
    assert names(made("round_robin"), replicas("abc"), [ask()] * 4, b=9) == "abca"


def test_least_outstanding_goes_where_least_runs_and_takes_turns_among_equals() -> None:
    one = made("least_outstanding")
    assert names(one, replicas("abc"), [ask()] * 2, a=1, b=1) == "cc"
    assert names(one, replicas("abc"), [ask()] * 4) == "abca"
    assert names(one, replicas("abc"), [ask()] * 3, a=1, b=1, c=1) == "bca"


def test_weighted_serves_in_proportion_and_interleaved() -> None:
    assert names(made("weighted"), replicas("abc", a=5), [ask()] * 7) == "aabacaa"
    served = Counter(names(made("weighted"), replicas("ab", a=0.5, b=1.5), [ask()] * 400))
    assert served == {"a": 100, "b": 300}


def test_weighted_is_fair_again_after_a_replica_was_away() -> None:
    one = made("weighted")
    names(one, replicas("abc", a=2), [ask()] * 10)
    names(one, replicas("ab", a=2), [ask()] * 10)
    assert Counter(names(one, replicas("abc", a=2), [ask()] * 400))["a"] == pytest.approx(200, abs=3)


def test_power_of_two_never_takes_the_busiest_of_all() -> None:
    assert set(names(made("power_of_two"), replicas("abc"), [ask()] * 200, a=3, b=2)) == {"b", "c"}


# --- prefix affinity --------------------------------------------------------------------------------------------------


def test_conversation_stays_where_its_beginning_is_cached() -> None:
    one, among = PrefixAffinity(), replicas("abcd")
    first = names(one, among, [ask("start " + "x" * 300)])
    others = [ask(f"{index} " + "y" * 300) for index in range(7)]
    names(one, among, others)
    turns = [ask("start " + "x" * length) for length in (500, 900, 1700, 3000, 6000)]
    assert set(names(one, among, turns)) == {first}


def test_what_stands_before_the_prompt_does_not_matter() -> None:
    one, among = PrefixAffinity(), replicas("abcd")
    asks = [ask("x" * 300, seed=seed, user=f"u{seed}") for seed in range(20)]
    assert len(set(names(one, among, asks))) == 1


def test_short_common_beginning_does_not_gather_different_prompts() -> None:
    one, among = PrefixAffinity(), replicas("abcd")
    asks = [ask("You are a helpful assistant. " + "z" * 80 + f"{index} " + "x" * 900) for index in range(40)]
    assert Counter(names(one, among, asks)) == dict.fromkeys("abcd", 10)


def test_prompt_shorter_than_a_prefix_is_balanced() -> None:
    assert names(PrefixAffinity(), replicas("abc"), [ask("Hi")] * 4) == "abca"


def test_affine_replica_that_is_overloaded_yields_and_its_stand_in_is_remembered() -> None:
    one, among, again = PrefixAffinity(), replicas("ab"), ask("x" * 300)
    assert names(one, among, [again]) == "a"
    assert names(one, among, [again], a=4) == "a"
    assert names(one, among, [again], a=5) == "b"
    assert names(one, among, [again], a=5, b=5) == "b"


def test_affine_replica_that_is_away_yields() -> None:
    one, again = PrefixAffinity(), ask("x" * 300)
    assert names(one, replicas("ab"), [again]) == "a"
    assert names(one, replicas("bc"), [again]) in "bc"


def test_index_forgets_what_was_not_used_for_longest() -> None:
    one, among = PrefixAffinity(entries=4), replicas("ab")
    old, used = ask("o" * 160), ask("u" * 160)
    assert names(one, among, [old, used]) == "ab"
    for index in range(6):
        names(one, among, [ask(f"{index} " + "n" * 130), used])
    assert len(one) == 4
    assert names(one, among, [used]) == "b"


# --- adapter affinity -------------------------------------------------------------------------------------------------


def home(adapter: str, members: str) -> str:
    return names(AdapterAffinity(), replicas(members, adapter=adapter), [ask()])


def test_requests_of_an_adapter_stay_at_one_replica_in_every_worker() -> None:
    among = replicas("abcd", adapter="json")
    assert len({names(AdapterAffinity(), among, [ask(str(index)) for index in range(9)]) for _ in range(3)}) == 1
    assert len(set(names(AdapterAffinity(), among, [ask(str(index)) for index in range(9)]))) == 1


def test_adapters_are_spread_over_replicas() -> None:
    homes = Counter(home(f"adapter-{index}", "abcd") for index in range(400))
    assert max(homes.values()) <= 1.3 * 100


def test_replica_that_goes_moves_only_its_own_adapters() -> None:
    for index in range(50):
        before = home(f"adapter-{index}", "abcd")
        if before != "d":
            assert home(f"adapter-{index}", "abc") == before


def test_overloaded_home_spills_over_to_always_the_same_next() -> None:
    among = replicas("abcd", adapter="json")
    first = home("json", "abcd")
    second = home("json", "abcd".replace(first, ""))
    assert set(names(AdapterAffinity(), among, [ask()] * 5, **{first: 5})) == {second}
    assert set(names(AdapterAffinity(), among, [ask()] * 5, **{first: 4})) == {first}


def test_base_model_is_balanced() -> None:
    assert names(AdapterAffinity(), replicas("abc"), [ask()] * 4) == "abca"
