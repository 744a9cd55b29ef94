"""What a plan may say, and how it complains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from loadgen._compare._derived import derived
from loadgen._compare._design import Level
from loadgen._compare._document import PlanError
from loadgen._compare._plan import Configuration
from loadgen._compare._plan_file import read_plan

GOOD = """\
host: http://127.0.0.1:8080/v1
control: http://127.0.0.1:8081
reference: bf16
configurations:
  int8: {model: "demo:int8"}
  bf16: {model: "demo:bf16"}
load:
  closed: [8]
  rates: [4, 2]
  slo: "ttft=200ms,itl=50ms"
  options: {prompt-tokens: 32, stop-at-end: true}
blocks: {at_least: 8, at_most: 20, half_width: 0.02}
"""


def read(folder: Path, text: str) -> Any:
    file = folder / "plan.yaml"
    file.write_text(text, encoding="utf-8")
    return read_plan(file)


def test_a_plan_is_read(tmp_path: Path) -> None:
    plan = read(tmp_path, GOOD)
    assert plan.names == ["bf16", "int8"]  # the reference first
    assert plan.target.host == "http://127.0.0.1:8080"
    assert plan.fixed_levels() == [
        Level(loop="closed", value=8.0),
        Level(loop="open", value=2.0),
        Level(loop="open", value=4.0),
    ]
    assert (plan.margin, plan.confidence, plan.blocks.at_most) == (0.05, 0.95, 20)
    assert not plan.restarts


def test_what_is_measured_decides_the_hash_and_where_it_is_written_does_not(tmp_path: Path) -> None:
    plan = read(tmp_path, GOOD)
    assert read(tmp_path, f"# a remark\noutput: elsewhere\n{GOOD}").hash() == plan.hash()
    assert read(tmp_path, GOOD.replace("itl=50ms", "itl=60ms")).hash() != plan.hash()


@pytest.mark.parametrize(
    ("before", "after", "line", "complaint"),
    [
        ("reference: bf16", "reference: fp8", 3, "reference names 'fp8', which is none of"),
        ("reference: bf16", "referense: bf16", 3, "did you mean 'reference'?"),
        ("host: http://127.0.0.1:8080/v1", "host: 127.0.0.1", 1, "host must start with http"),
        ('{model: "demo:int8"}', "{}", 5, "configurations.int8.model is missing"),
        ('{model: "demo:int8"}', "{model: demo:int8, model: demo:int4}", 5, "stands there twice"),
        ('{model: "demo:int8"}', "{model: demo:int8, engine_options: {max_num_seqs: 4}}", 5, "need config"),
        ('  int8: {model: "demo:int8"}', '  int 8: {model: "demo:int8"}', 5, "is no name"),
        ("  closed: [8]", "  closed: [1.5]", 8, "load.closed are whole numbers"),
        ("  closed: [8]", "  closed: 8", 8, "load.closed must be a list of numbers"),
        ("  closed: [8]", "  run_time_s: 3.5", 8, "load.run_time_s must be a whole number"),
        ("  rates: [4, 2]", "  rates: [0]", 9, "load.rates must be above 0"),
        ("  rates: [4, 2]", "  rates: {concurrency: 4}", 9, "needs percent_of_capacity"),
        ("ttft=200ms", "tfft=200ms", 10, "load.slo is wrong"),
        ("prompt-tokens: 32", "seed: 32", 11, "compare sets that one itself"),
        ("at_least: 8", "at_least: 5", 12, "blocks.at_least must be a whole number of at least 8"),
        (", half_width: 0.02", "", 12, "needs half_width"),
        ("blocks:", "metrics: [speed]\nblocks:", 12, "metrics has 'speed', which is none of tokens_per_s"),
        ("blocks:", "margin: 5\nblocks:", 12, "margin is a part of 1"),
        ("blocks:", "confidence: 95\nblocks:", 12, "confidence must be below 1"),
        ("blocks:", "seed: one\nblocks:", 12, "seed must be a whole number"),
        ("blocks:", "config: nowhere.yaml\nblocks:", 12, "which does not exist"),
    ],
)
def test_a_wrong_plan_names_the_key_and_the_line(
    tmp_path: Path, before: str, after: str, line: int, complaint: str
) -> None:
    assert before in GOOD
    with pytest.raises(PlanError) as caught:
        read(tmp_path, GOOD.replace(before, after))
    assert f"plan.yaml, line {line}: " in str(caught.value)
    assert complaint in str(caught.value)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "is empty"),
        ("a: [", "is not YAML"),
        ("- a", "must be a mapping"),
        ("configurations: {a: {model: m}, b: {model: n}}\nload: {closed: [1]}", "needs host"),
        ("host: http://h\nconfigurations: {a: {model: m}}\nload: {closed: [1]}", "at least two"),
        ("host: http://h\nconfigurations: {a: {model: m}, b: {model: n}}\nload: {}", "needs closed"),
        ("host: http://h\nconfigurations: {a: {model: m}, b: {model: n}}", "needs closed"),
        (
            "host: http://h\nconfigurations: {a: {model: m}, b: {model: n}}\nload: {closed: [1], warm_up_s: 10}",
            "leaves nothing",
        ),
    ],
)
def test_a_plan_that_is_no_plan_is_refused(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(PlanError, match=complaint):
        read(tmp_path, text)


def test_a_plan_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="cannot be read"):
        read_plan(tmp_path / "none.yaml")


def test_a_trace_file_is_looked_for_beside_the_plan(tmp_path: Path) -> None:
    plan = read(tmp_path, GOOD.replace("stop-at-end: true", "workload-file: trace.csv"))
    assert plan.load.options["workload-file"] == str(tmp_path / "trace.csv")


def bare(name: str, model: str, **options: Any) -> Configuration:
    return Configuration(name=name, model=model, engine_options=options)


def test_engine_options_are_laid_over_the_engine_that_serves_the_model(root: Path) -> None:
    config = root / "deploy" / "examples" / "demo.yaml"
    plain, wide = bare("plain", "demo:bf16"), bare("wide", "demo:bf16", max_num_seqs=64, enable_prefix_caching=False)
    text = {
        one.name: derived(config, [plain, wide], one, ports=(18080, 18081), state=Path("/s")) for one in (plain, wide)
    }
    found = yaml.safe_load(text["wide"])
    assert [engine["name"] for engine in found["engines"]] == ["demo-bf16"]
    assert found["engines"][0]["options"] == {
        "max_model_len": 1024,
        "max_num_seqs": 64,
        "enforce_eager": True,
        "enable_prefix_caching": False,
    }
    assert found["engines"][0]["checkpoint"] == str(root / "models" / "demo")
    assert (found["gateway"]["port"], found["control"]["port"], found["state_dir"]) == (18080, 18081, "/s")
    assert yaml.safe_load(text["plain"])["engines"][0]["options"]["max_num_seqs"] == 16
    assert found["adapters"] == []


def test_an_adapter_brings_its_engine(root: Path) -> None:
    config = root / "deploy" / "examples" / "demo.yaml"
    sides = [bare("base", "demo:bf16"), bare("json", "json:int4")]
    found = yaml.safe_load(derived(config, sides, sides[1], ports=(1, 2), state=Path("/s")))
    assert [engine["name"] for engine in found["engines"]] == ["demo-bf16", "demo-int4"]
    assert [adapter["name"] for adapter in found["adapters"]] == ["json"]


def test_a_model_that_the_configuration_does_not_serve_is_refused(root: Path) -> None:
    config = root / "deploy" / "examples" / "demo.yaml"
    with pytest.raises(PlanError, match=r"serves nothing under 'demo:fp4'; its engines serve demo:bf16, demo:int8"):
        derived(config, [bare("a", "demo:fp4")], bare("a", "demo:fp4"), ports=(1, 2), state=Path("/s"))


def test_the_plans_in_the_examples_are_plans(root: Path) -> None:
    plans = sorted((root / "deploy" / "examples" / "plans").glob("*.yaml"))
    plans = [file for file in plans if "configurations:" in file.read_text(encoding="utf-8")]
    assert plans
    for file in plans:
        plan = read_plan(file)
        if plan.target.config is not None:
            for one in plan.configurations:
                derived(plan.target.config, plan.configurations, one, ports=(1, 2), state=Path("/s"))
