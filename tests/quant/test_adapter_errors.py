"""Adapters that cannot be used are refused with what is wrong and what to do, and nothing is left behind."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path

import pytest

from tests.fakes.safetensors_file import write_adapter, write_int8, write_safetensors
from tests.quant.quant_environment import QuantEnvironment, quant_environment  # noqa: F401 - a fixture

pytestmark = [pytest.mark.engine_env, pytest.mark.timeout(600)]

LAYER = "base_model.model.model.layers.0.self_attn.q_proj"


@pytest.fixture
def base(root: Path) -> Path:
    return root / "models" / "demo"


def lora(folder: Path, fill: float = 0.5, d_in: int = 256, **config: object) -> Path:
    """A LoRA of rank 2 on one layer of the demo model; every weight is `fill`."""
    write_adapter(folder, rank=2, target_modules=["q_proj"], layers_to_transform=[0], **config)
    shapes = {f"{LAYER}.lora_A.weight": ("F32", (2, d_in)), f"{LAYER}.lora_B.weight": ("F32", (256, 2))}
    values = {
        name: struct.pack(f"<{math.prod(shape)}f", *[fill] * math.prod(shape)) for name, (_, shape) in shapes.items()
    }
    write_safetensors(folder / "adapter_model.safetensors", shapes, values)
    return folder


def refused(quant: QuantEnvironment, verb: str, adapter: Path, base: Path, out: Path) -> str:
    done = quant.run("adapter", verb, adapter, out, "--base", base)
    assert done.returncode == 1, done.stdout
    assert not out.exists()
    return done.stderr


@pytest.mark.parametrize("fill", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_named(
    quant_environment: QuantEnvironment,  # noqa: F811
    tmp_path: Path,
    base: Path,
    fill: float,
) -> None:
    adapter = lora(tmp_path / "adapter", fill)
    said = quant_environment.run("adapter", "inspect", adapter)
    assert said.returncode == 1
    assert f"{LAYER}.lora_A.weight holds NaN or infinite values" in said.stderr
    assert "holds NaN" in refused(quant_environment, "merge", adapter, base, tmp_path / "out")


def test_other_shape_is_named_with_both_shapes(
    quant_environment: QuantEnvironment,  # noqa: F811
    tmp_path: Path,
    base: Path,
) -> None:
    said = refused(quant_environment, "merge", lora(tmp_path / "adapter", d_in=128), base, tmp_path / "out")
    assert "layers.0.self_attn.q_proj: the adapter is for (out, in) = (256, 128)" in said
    assert "(256, 256)" in said


def test_other_shape_of_a_foreign_kind_is_named(
    quant_environment: QuantEnvironment,  # noqa: F811
    tmp_path: Path,
    base: Path,
) -> None:
    adapter = tmp_path / "adapter"
    write_adapter(adapter, peft_type="IA3", target_modules=["q_proj"], feedforward_modules=[], r=None, bias=None)
    names = [f"base_model.model.model.layers.{block}.self_attn.q_proj.ia3_l" for block in range(4)]
    write_safetensors(adapter / "adapter_model.safetensors", dict.fromkeys(names, ("F32", (99, 1))))
    said = refused(quant_environment, "merge", adapter, base, tmp_path / "out")
    assert "size mismatch" in said
    assert "99" in said


def test_quantized_base_is_refused(
    quant_environment: QuantEnvironment,  # noqa: F811
    tmp_path: Path,
) -> None:
    adapter, base = write_adapter(tmp_path / "adapter"), write_int8(tmp_path / "base")
    (base / "tokenizer.json").write_text("{}", encoding="utf-8")
    assert "quantized already" in refused(quant_environment, "merge", adapter, base, tmp_path / "out")


def test_plain_lora_is_not_converted(
    quant_environment: QuantEnvironment,  # noqa: F811
    tmp_path: Path,
    base: Path,
) -> None:
    said = refused(quant_environment, "convert", lora(tmp_path / "adapter"), base, tmp_path / "out")
    assert "is not converted" in said
    assert "load it as it is." in said


def test_existing_output_is_never_overwritten(
    quant_environment: QuantEnvironment,  # noqa: F811
    tmp_path: Path,
    base: Path,
) -> None:
    done = quant_environment.run("adapter", "merge", lora(tmp_path / "adapter"), tmp_path, "--base", base)
    assert done.returncode == 1
    assert "exists already" in done.stderr


def test_base_that_the_adapter_does_not_name_has_to_be_given(
    quant_environment: QuantEnvironment,  # noqa: F811
    tmp_path: Path,
) -> None:
    done = quant_environment.run("adapter", "merge", lora(tmp_path / "adapter"), tmp_path / "out")
    assert done.returncode == 1
    assert "Give --base." in done.stderr


def test_merged_lora_differs_from_the_base_in_its_layer_only(
    quant_environment: QuantEnvironment,  # noqa: F811
    tmp_path: Path,
    base: Path,
) -> None:
    done = quant_environment.run("adapter", "merge", lora(tmp_path / "adapter"), tmp_path / "out", "--base", base)
    assert done.returncode == 0, done.stderr
    before, after = (_tensors(folder / "model.safetensors") for folder in (base, tmp_path / "out"))
    assert [name for name in before if before[name] != after[name]] == ["model.layers.0.self_attn.q_proj.weight"]
    assert (tmp_path / "out" / "tokenizer.json").exists()
    assert json.loads((tmp_path / "out" / "merge.json").read_text(encoding="utf-8"))["from"] == "lora"


def _tensors(file: Path) -> dict[str, bytes]:
    data = file.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    start = 8 + length
    return {
        name: data[start + entry["data_offsets"][0] : start + entry["data_offsets"][1]]
        for name, entry in header.items()
        if name != "__metadata__"
    }
