"""`quant can-serve`: every method's output on every kind of device, and what it says."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from quant.can_serve import Question, Verdict, devices_that_can, judge
from quant.cli import main
from quant.compressor.table import COMPRESSOR_METHODS
from server.models import read_adapter, read_checkpoint
from server.models.device import DEVICES
from tests.fakes.safetensors_file import W8A8, Shapes, llama_tensors, weight_only, write_checkpoint

CPUS = {"cpu", "cpu-amx", "cpu-avx2"}
EVERYWHERE = set(DEVICES)
GPUS = EVERYWHERE - CPUS
SINCE_TURING = GPUS - {"sm70"}
OWN_METHODS = ("w8a8-int8", "w4a16", "fp8-dynamic", "fp8-block", "cast-bf16", "cast-fp16")

TOKENS = {"num_bits": 8, "type": "float", "strategy": "token", "dynamic": True}
STATIC = {"num_bits": 8, "type": "float", "strategy": "tensor", "dynamic": False}


def fp8(strategy: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
    section = weight_only(8, kind="float", layout="float-quantized", group=None)
    section["config_groups"]["group_0"]["weights"]["strategy"] = strategy
    section["config_groups"]["group_0"]["input_activations"] = dict(inputs)
    return section


def fp8_tensors(scales_of: Callable[[tuple[int, ...]], tuple[int, ...]]) -> Shapes:
    """A small Llama with FP8 linear layers; `scales_of` gives the shape of a layer's scales."""
    out: dict[str, tuple[str, tuple[int, ...]]] = {}
    for name, (dtype, shape) in llama_tensors().items():
        if "_proj." in name:
            out |= {name: ("F8_E4M3", shape), f"{name}_scale": ("BF16", scales_of(shape))}
        else:
            out[name] = (dtype, shape)
    return out


def nvfp4() -> dict[str, Any]:
    section = weight_only(4, kind="float", layout="nvfp4-pack-quantized", group=16)
    section["config_groups"]["group_0"]["input_activations"] = {"num_bits": 4, "type": "float", "dynamic": "local"}
    return section


KV_ONLY = {
    "quant_method": "compressed-tensors",
    "format": "dense",
    "config_groups": {},
    "kv_cache_scheme": {"num_bits": 8, "type": "float"},
}

INT4 = SINCE_TURING | {"cpu", "cpu-amx"}
INT8 = SINCE_TURING | CPUS
SERVED: dict[str, tuple[dict[str, Any], set[str]]] = {
    "cast-bf16": ({}, EVERYWHERE - {"sm70", "sm75"}),
    "cast-fp16": ({"dtype": "float16"}, EVERYWHERE),
    "w8a8-int8": ({"quantization_config": W8A8}, INT8),
    "w4a16": ({"quantization_config": weight_only(4, group=128)}, INT4),
    "fp8-dynamic": (
        {"quantization_config": fp8("channel", TOKENS), "shapes": fp8_tensors(lambda shape: (shape[0], 1))},
        SINCE_TURING | CPUS,
    ),
    "fp8-block": (
        {"quantization_config": fp8("block", TOKENS), "shapes": fp8_tensors(lambda shape: (shape[0] // 8, 1))},
        SINCE_TURING | {"cpu-amx"},
    ),
    "gptq": ({"quantization_config": weight_only(4, group=128)}, INT4),
    "awq": ({"quantization_config": weight_only(4, group=128)}, INT4),
    "smoothquant": ({"quantization_config": W8A8}, INT8),
    "fp8-static": (
        {"quantization_config": fp8("tensor", STATIC), "shapes": fp8_tensors(lambda _: (1,))},
        SINCE_TURING | {"cpu-amx"},
    ),
    "kv-cache": ({"quantization_config": KV_ONLY}, EVERYWHERE - {"sm70", "sm75", "cpu-avx2"}),
    "nvfp4": ({"quantization_config": nvfp4()}, SINCE_TURING),
    "rtn-reference": ({"quantization_config": W8A8}, INT8),
}
"""Method → (what its output's config.json says, the devices that can serve it)."""


def made_by(method: str, folder: Path) -> Path:
    return write_checkpoint(folder, **SERVED[method][0])


def ask(*arguments: object) -> int:
    return main(["can-serve", *(str(argument) for argument in arguments)])


def test_every_method_stands_in_the_table() -> None:
    assert SERVED.keys() == {*OWN_METHODS, *COMPRESSOR_METHODS}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("method", SERVED)
def test_output_of_a_method_is_served_exactly_where_the_table_says(method: str, device: str, tmp_path: Path) -> None:
    verdict = judge(Question(checkpoint=read_checkpoint(made_by(method, tmp_path))), DEVICES[device])
    assert verdict.served == (device in SERVED[method][1]), verdict


def test_devices_that_can_are_those_that_are_not_refused(tmp_path: Path) -> None:
    question = Question(checkpoint=read_checkpoint(made_by("nvfp4", tmp_path)))
    assert set(devices_that_can(question)) == SERVED["nvfp4"][1]


def test_yes_is_exit_status_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(made_by("w4a16", tmp_path), "--device", "sm80") == 0
    assert capsys.readouterr().out.startswith("yes: ")


def test_no_names_the_rule_what_would_work_and_where(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(made_by("nvfp4", tmp_path), "--device", "cpu") == 1
    said = capsys.readouterr().out
    assert "(rule cpu-fp4)" in said
    assert "instead: serve a W8A8" in said
    assert "sm100" in said


def test_json_is_one_object_with_the_verdict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(made_by("kv-cache", tmp_path), "--device", "cpu-avx2", "--json") == 1
    answer = json.loads(capsys.readouterr().out)
    assert (answer["can_serve"], answer["rule"], answer["device"]) == (False, "cpu-fp8-kv", "cpu-avx2")
    assert "cpu" in answer["devices"]


@pytest.mark.parametrize("arguments", [("nowhere", "--device", "cpu"), ("", "--device", "tpu")])
def test_wrong_input_is_exit_status_2(
    arguments: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask(tmp_path / arguments[0], *arguments[1:]) == 2
    assert capsys.readouterr().err.startswith("quant: ")


def test_memory_and_dtype_of_the_engine_count(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = made_by("cast-bf16", tmp_path)
    assert ask(folder, "--device", "sm80", "--memory-gib", "0.00001") == 1
    assert "cuda-memory" in capsys.readouterr().out
    assert ask(folder, "--device", "sm75") == 1
    assert ask(folder, "--device", "sm75", "--dtype", "float16") == 0


@pytest.mark.parametrize("variant", ["w8a8-int8", "cast-bf16"])
def test_adapter_on_w8a8_is_refused_on_the_cpu_only(root: Path, tmp_path: Path, variant: str) -> None:
    question = Question(
        checkpoint=read_checkpoint(made_by(variant, tmp_path)), adapter=read_adapter(root / "adapters" / "json")
    )
    assert rule_on(question, "cpu") == ("cpu-w8a8-adapters" if variant == "w8a8-int8" else "adapter-base")


def test_demo_adapter_is_served_on_the_demo_model(root: Path) -> None:
    demo = read_checkpoint(root / "models" / "demo")
    question = Question(checkpoint=demo, adapter=read_adapter(root / "adapters" / "json"))
    assert rule_on(question, "cpu") is None
    assert rule_on(Question(checkpoint=demo, adapter=question.adapter, max_rank=1), "cpu") == "adapter-rank"


def rule_on(question: Question, device: str) -> str | None:
    verdict: Verdict = judge(question, DEVICES[device])
    return verdict.rule
