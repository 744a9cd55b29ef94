"""Cores and GPUs are shared out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.config import Config
from server.control.cores import CoreWish, gateway_cores, parse_cores, plan_cores
from server.control.devices import CpuAbilities, Gpu, facts_of, gpu_shares, place_engines
from server.units import Bytes

CORES = st.frozensets(st.integers(0, 63), min_size=1, max_size=32)


def wish(name: str, cores: frozenset[int] | None = None) -> CoreWish:
    return CoreWish(name=name, cores=cores)


@st.composite
def wishes_on(draw, cores):
    asked = st.none() | st.frozensets(st.sampled_from(sorted(cores)), min_size=1)
    names = [f"e{number}" for number in range(draw(st.integers(1, 8)))]
    return [wish(name, draw(asked)) for name in names]


@given(st.data(), CORES, st.integers(1, 8))
def test_gateway_and_engines_that_named_no_cores_never_share_one_if_there_are_two(data, cores, workers):
    wishes = data.draw(wishes_on(cores))
    plan = plan_cores(wishes, cores, workers=workers)
    assert plan.gateway
    assert plan.gateway <= cores
    for one in wishes:
        assert plan.engines[one.name], "every engine has a core"
        assert plan.engines[one.name] <= cores
        if one.cores is not None:
            assert plan.engines[one.name] == one.cores
        elif len(cores) >= 2:
            assert not plan.engines[one.name] & plan.gateway


@given(CORES, st.integers(1, 8), st.integers(1, 4))
def test_engines_have_cores_of_their_own_if_there_are_enough(cores, engines, workers):
    plan = plan_cores([wish(f"e{number}") for number in range(engines)], cores, workers=workers)
    rest = cores - plan.gateway
    if len(rest) >= engines:
        shares = list(plan.engines.values())
        assert sum(map(len, shares)) == len(rest) == len(frozenset().union(*shares))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_three_engines_on_two_cores_share_one_and_leave_the_gateway_the_other():
    plan = plan_cores([wish("a"), wish("b"), wish("c")], frozenset({0, 1}), workers=1)
    assert plan.gateway == {0}
    assert set(plan.engines.values()) == {frozenset({1})}
    assert plan.start == {0, 1}


def test_a_single_core_is_shared_by_all():
    plan = plan_cores([wish("a")], frozenset({5}), workers=1)
    assert plan.gateway == plan.engines["a"] == {5}


def test_gateway_takes_cores_that_nobody_asked_for():
    plan = plan_cores([wish("a", frozenset({0, 1}))], frozenset({0, 1, 2}), workers=1)
    assert plan.gateway == {2}


def test_nobody_is_bound_where_no_engine_computes_on_the_cpu():
    plan = plan_cores([], frozenset({0, 1}), workers=1)
    assert (plan.gateway, dict(plan.engines)) == (frozenset(), {})


@pytest.mark.parametrize(
    ("device", "cores"), [("cpu", None), ("gpu:1", None), ("cpu:3", {3}), ("cpu:1-3,5", {1, 2, 3, 5})]
)
def test_cores_are_read_from_the_device(device, cores):
    assert parse_cores(device) == cores


def config(*engines: dict[str, object]) -> Config:
    data = [
        {"name": f"e{number}", "model": "m", "variant": f"v{number}", "checkpoint": "/m", **engine}
        for number, engine in enumerate(engines)
    ]
    return Config.model_validate({"engines": data})


def gpus(count: int) -> list[Gpu]:
    return [Gpu(index=index, compute_capability=(8, index), memory_bytes=Bytes(1000)) for index in range(count)]


def test_auto_takes_gpus_in_turn_as_many_as_the_engine_needs():
    placed = place_engines(config({}, {"options": {"tensor_parallel_size": 2}}, {"device": "cpu"}, {}), gpus(2))
    assert [str(place) for place in placed] == ["gpu:0", "gpu:0,1", "cpu", "gpu:1"]


def test_auto_is_the_cpu_where_there_is_no_gpu():
    assert [place.kind for place in place_engines(config({}), [])] == ["cpu"]


def test_engines_that_share_a_gpu_share_its_memory_unless_told_otherwise():
    both = config({"device": "gpu:0"}, {"device": "gpu:0", "options": {"gpu_memory_utilization": 0.2}})
    assert gpu_shares(both, place_engines(both, gpus(1))) == [0.45, None]
    alone = config({"device": "gpu:0"})
    assert gpu_shares(alone, place_engines(alone, gpus(1))) == [None]


def test_facts_of_several_gpus_are_the_oldest_ones_and_the_sum():
    two = config({"device": "gpu:0,1", "options": {"cpu_offload_gb": 0}})
    facts = facts_of(two.engines[0], place_engines(two, gpus(2))[0], gpus(2), cpu=CpuAbilities(avx512=False))
    assert (facts.kind, facts.compute_capability, facts.memory_bytes) == ("cuda", (8, 0), 2000)
    assert facts.avx512 is None


def test_facts_of_the_cpu_are_its_abilities():
    one = config({})
    facts = facts_of(one.engines[0], place_engines(one, [])[0], [], cpu=CpuAbilities(avx512=False))
    assert (facts.kind, facts.avx512) == ("cpu", False)


def test_gateway_cores_are_none_for_engines_that_run_elsewhere():
    far = {"engines": [{"name": "far", "model": "m", "precision": "bf16", "url": "http://far:1"}]}
    assert gateway_cores(Config.model_validate(far)) == frozenset()
