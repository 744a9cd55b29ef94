"""What is known to be wrong before anything is started."""

from __future__ import annotations

from typing import Any

import pytest

from server.control.preflight import Problem, preflight
from tests.control.conftest import FleetStage
from tests.fakes.safetensors_file import write_adapter, write_checkpoint, write_int4


def problems(stage: FleetStage, *engines: dict[str, Any], **more: Any) -> list[Problem]:
    return preflight(stage.config(*engines, **more), environ={})[1]


def only(found: list[Problem]) -> Problem:
    assert len(found) == 1, found
    return found[0]


def test_good_configuration_has_no_problem_and_no_open_question(stage):
    resolved, found = preflight(stage.config({}, {"name": "q", "checkpoint": "int8"}), environ={})
    assert found == []
    assert [(engine.full_id, engine.precision) for engine in resolved.values()] == [
        ("demo:bf16", "bf16"),
        ("demo:int8", "int8"),
    ]
    assert resolved["q"].card is not None
    assert resolved["q"].card.precision == "int8"


def test_missing_checkpoint_is_a_lack_of_this_machine(stage):
    problem = only(problems(stage, {"checkpoint": "nowhere", "precision": "bf16"}))
    assert (problem.where, problem.scope) == ("engines.demo-bf16", "machine")
    assert "nowhere" in problem.message


def test_float_checkpoint_served_in_another_float_has_that_precision(stage):
    resolved, _ = preflight(stage.config({"options": {"dtype": "float16", "kv_cache_gib": 0.001}}), environ={})
    assert resolved["demo-bf16"].full_id == "demo:fp16"


def test_precision_that_the_checkpoint_contradicts_is_refused(stage):
    problem = only(problems(stage, {"precision": "int4"}))
    assert "`precision` says int4" in problem.message
    assert problem.scope == "file"


def test_int4_on_a_cpu_without_avx512_is_a_lack_of_this_machine(stage, tmp_path):
    config = stage.config({"checkpoint": str(write_int4(tmp_path / "int4"))})
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("flags : fpu avx2\n")
    problem = only(preflight(config, environ={}, cpuinfo=cpuinfo)[1])
    assert "AVX-512" in problem.message
    assert problem.scope == "machine"

    cpuinfo.write_text("flags : fpu avx2 avx512f\n")
    assert preflight(config, environ={}, cpuinfo=cpuinfo)[1] == []


def test_own_name_for_a_precision_is_taken_as_it_is(stage):
    assert problems(stage, {"precision": "w16-special"}) == []


def test_checkpoint_that_is_not_downloaded_needs_a_precision(stage):
    problem = only(problems(stage, {"checkpoint": "hf:org/name"}))
    assert "precision: bf16" in problem.message


def test_adapters_on_w8a8_on_the_cpu_are_refused_before_the_engine_dies_of_them(stage):
    problem = only(problems(stage, {"checkpoint": "int8", "adapters": {}}))
    assert "W8A8" in problem.message
    assert "Instead" in problem.message


def test_replicas_of_one_variant_must_have_one_precision(stage):
    found = problems(stage, {"variant": "v"}, {"name": "twin", "variant": "v", "checkpoint": "int8"})
    assert only(found).where == "engines.twin"
    assert "interchangeable" in only(found).message


def test_id_with_two_meanings_is_refused(stage):
    write_adapter(stage.root / "json")
    found = problems(stage, {"adapters": {}}, adapters=({"name": "demo:bf16", "model": "demo", "path": "json"},))
    assert "'demo:bf16'" in only(found).message


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kind": "vlm"}, "no engine kind 'vlm'. Known: openai, vllm"),
        ({"launcher": "slurm"}, "no launcher 'slurm'. Known: external, local"),
        ({"device": "gpu:7"}, "names a GPU that is not here"),
        ({"device": "cpu:4000"}, "names cores that this process may not use"),
        ({"kind": "openai"}, "cannot start"),
    ],
)
def test_impossible_wish_is_named(stage, change, said):
    assert said in only(problems(stage, change)).message


def test_missing_environment_is_told_once_for_all_engines(stage):
    environment = {"engine": str(stage.root / "no-env")}
    problem = only(problems(stage, {}, {"name": "b", "variant": "b"}, environments=environment))
    assert problem.where == "environments.engine"
    assert "make .venv-engine" in problem.message


def test_missing_key_names_the_variable(stage):
    far = {"checkpoint": None, "url": "http://far:1", "precision": "bf16", "device": "auto", "api_key_env": "FAR_KEY"}
    problem = only(problems(stage, far))
    assert "FAR_KEY" in problem.message


def test_more_memory_than_there_is_is_refused(stage):
    problem = only(problems(stage, {"options": {"kv_cache_gib": 4000}}))
    assert "Not enough memory" in problem.message
    assert "kv_cache_gib" in problem.message


def test_engine_that_runs_has_its_memory_already(stage):
    config = stage.config({"options": {"kv_cache_gib": 4000}})
    assert preflight(config, environ={}, running=frozenset({"demo-bf16"}))[1] == []


def test_missing_adapter_is_told(stage):
    found = problems(stage, {"adapters": {}}, adapters=({"name": "json", "model": "demo", "path": "nowhere"},))
    assert only(found).where == "adapters.json"


def test_adapter_that_no_engine_can_load_is_told_with_what_would_work(stage):
    write_adapter(stage.root / "dora", use_dora=True)
    found = problems(stage, {"adapters": {}}, adapters=({"name": "dora", "model": "demo", "path": "dora"},))
    assert "No engine can load it. demo-bf16:" in only(found).message
    assert "Instead" in only(found).message


def test_adapter_that_one_engine_can_load_is_no_problem(stage):
    write_adapter(stage.root / "json")
    engines = ({"adapters": {}}, {"name": "q", "checkpoint": "int8"})
    assert problems(stage, *engines, adapters=({"name": "json", "model": "demo", "path": "json"},)) == []


def test_broken_checkpoint_is_told_by_file(stage):
    broken = write_checkpoint(stage.root / "broken")
    (broken / "model.safetensors").write_bytes(b"x")
    assert "model.safetensors" in only(problems(stage, {"checkpoint": "broken"})).message
