"""Rounding to nearest: what lands on the disk and how far it is from the original."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.quant.conftest import MAKE_CHECKPOINT, Quant, Script

pytestmark = pytest.mark.engine_env

Q_PROJ = "model.layers.0.self_attn.q_proj"
DOWN_PROJ = "model.layers.0.mlp.down_proj"
UNTOUCHED = ["model.embed_tokens.weight", "model.layers.0.mlp.gate.weight", "model.norm.weight"]

COMPARE = """
import torch
from quant.checkpoint import open_checkpoint
from quant.dequantize import read_weights
original, rounded = (read_weights(open_checkpoint(folder)) for folder in (before, after))
result = {name: [((rounded[name] - w).abs().amax() / w.abs().amax()).item(),
                 ((rounded[name] - w).square().sum() / w.square().sum()).sqrt().item()] for name, w in original.items()}
assert original.keys() == rounded.keys()
"""


def header(folder: Path) -> dict[str, Any]:
    """The safetensors header, read by hand."""
    data = (folder / "model.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    found: dict[str, Any] = json.loads(data[8 : 8 + length])
    return {name: (entry["dtype"], entry["shape"]) for name, entry in found.items() if name != "__metadata__"}


def test_int8_layout_is_one_int8_matrix_and_one_scale_a_row(int8: Path) -> None:
    found = header(int8)
    assert found[f"{Q_PROJ}.weight"] == ("I8", [96, 256])
    assert found[f"{Q_PROJ}.weight_scale"] == ("F32", [96, 1])
    assert len(found) == 2 * 2 + len(UNTOUCHED)


def test_int4_layout_is_packed_words_group_scales_and_the_shape(int4: Path) -> None:
    found = header(int4)
    assert found[f"{DOWN_PROJ}.weight_packed"] == ("I32", [256, 384 // 8])
    assert found[f"{DOWN_PROJ}.weight_scale"] == ("BF16", [256, 384 // 128])
    assert found[f"{DOWN_PROJ}.weight_shape"] == ("I64", [2])
    assert f"{DOWN_PROJ}.weight" not in found


def test_embeddings_norms_and_routers_keep_their_values(
    script: Script, checkpoint: Path, int8: Path, int4: Path
) -> None:
    for variant in (int8, int4):
        assert {name: header(variant)[name] for name in UNTOUCHED} == {n: header(checkpoint)[n] for n in UNTOUCHED}
        errors = script(COMPARE, before=checkpoint, after=variant)
        assert [errors[name] for name in UNTOUCHED] == [[0, 0]] * len(UNTOUCHED)


def test_int8_weights_come_back_within_half_a_step(script: Script, checkpoint: Path, int8: Path) -> None:
    errors = script(COMPARE, before=checkpoint, after=int8)
    for layer in (Q_PROJ, DOWN_PROJ):
        largest, relative = errors[f"{layer}.weight"]
        assert 0 < largest <= 0.5 / 127 * 1.01
        assert relative < 0.01


def test_int4_weights_come_back_closer_with_smaller_groups(
    script: Script, quant: Quant, checkpoint: Path, int4: Path, tmp_path: Path
) -> None:
    small = tmp_path / "g32"
    assert quant("rtn", checkpoint, small, "--scheme", "w4a16", "--group-size", 32).returncode == 0
    coarse, fine = (script(COMPARE, before=checkpoint, after=folder) for folder in (int4, small))
    for layer in (Q_PROJ, DOWN_PROJ):
        assert 0.02 < fine[f"{layer}.weight"][1] < coarse[f"{layer}.weight"][1] < 0.13


def test_row_of_zeros_comes_back_as_zeros(script: Script, int8: Path, int4: Path) -> None:
    source = """
from quant.checkpoint import open_checkpoint
from quant.dequantize import read_weights
result = [read_weights(open_checkpoint(Path(p)))[name][0].abs().max().item() for p in folders]
"""
    found = script(source, folders=[str(int8), str(int4)], name=f"{Q_PROJ}.weight")
    assert found == [0, 0]


def test_packing_puts_the_first_value_into_the_lowest_four_bits(script: Script) -> None:
    source = """
import torch
from quant.methods.w4a16 import W4A16
row = torch.zeros(1, 32); row[0, :8] = torch.tensor([-7.5, -3, -2, -1, 0, 1, 2, 7])
parts = W4A16(32).quantize(row)
result = [parts["weight_packed"][0, 0].item() & 0xFFFFFFFF, (parts["weight_scale"].item())]
"""
    word, scale = script(source)
    values = [(word >> (4 * place) & 0xF) - 8 for place in range(8)]
    expected = [-7.5, -3, -2, -1, 0, 1, 2, 7]
    assert all(abs(value * scale - wanted) <= scale / 2 for value, wanted in zip(values, expected, strict=True))
    assert values[0] < values[1] < values[2] < values[3] < values[4] == 0


def test_configuration_names_the_layout_and_what_is_left_alone(checkpoint: Path, int8: Path, int4: Path) -> None:
    eight, four = (json.loads((folder / "config.json").read_text()) for folder in (int8, int4))
    assert eight["hidden_size"] == json.loads((checkpoint / "config.json").read_text())["hidden_size"]
    assert eight["quantization_config"]["format"] == "int-quantized"
    assert eight["quantization_config"]["config_groups"]["group_0"]["input_activations"]["dynamic"] is True
    assert four["quantization_config"]["format"] == "pack-quantized"
    assert four["quantization_config"]["config_groups"]["group_0"]["weights"]["group_size"] == 128
    assert four["quantization_config"]["ignore"] == ["lm_head", "model.layers.0.mlp.gate"]


def test_tokenizer_comes_along_and_the_original_card_and_quality_do_not(int4: Path) -> None:
    assert (int4 / "tokenizer.json").exists()
    assert not (int4 / "README.md").exists()
    assert not list(int4.glob("quality*"))


def test_same_source_gives_the_same_bytes(quant: Quant, checkpoint: Path, int4: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    assert quant("rtn", checkpoint, again, "--scheme", "w4a16").returncode == 0
    assert {f.name: f.read_bytes() for f in again.iterdir()} == {f.name: f.read_bytes() for f in int4.iterdir()}


def test_checkpoint_in_several_files_stays_in_several_files(
    script: Script, quant: Quant, checkpoint: Path, tmp_path: Path
) -> None:
    split = tmp_path / "split"
    source = """
from safetensors.torch import load_file, save_file
import shutil
shutil.copytree(before, after)
tensors = load_file(after / "model.safetensors")
(after / "model.safetensors").unlink()
names = sorted(tensors)
weight_map = {name: f"model-0000{1 + place % 2}-of-00002.safetensors" for place, name in enumerate(names)}
for file in set(weight_map.values()):
    save_file({n: tensors[n] for n in names if weight_map[n] == file}, after / file)
(after / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
result = None
"""
    script(source, before=checkpoint, after=split)
    done = quant("rtn", split, tmp_path / "out", "--scheme", "w8a8-int8")
    assert done.returncode == 0, done.stderr
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())["weight_map"]
    assert len(set(index.values())) == 2
    errors = script(COMPARE, before=checkpoint, after=tmp_path / "out")
    assert max(relative for _, relative in errors.values()) < 0.01


def refused(quant: Quant, source: Path, out: Path, *options: object) -> str:
    """The one line on stderr of a refusal, after which nothing is left behind."""
    around = set(out.parent.iterdir()) if out.parent.exists() else set()
    done = quant("rtn", source, out, *options)
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stderr.startswith("quant: ")
    assert done.stderr.count("\n") == 1
    assert set(out.parent.iterdir()) - around == set()
    return done.stderr


def test_missing_source_is_named(quant: Quant, tmp_path: Path) -> None:
    message = refused(quant, tmp_path / "nowhere", tmp_path / "out", "--scheme", "w4a16")
    assert "nowhere" in message
    assert "Check the path" in message


def test_directory_without_weights_is_refused(quant: Quant, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert "no model.safetensors" in refused(quant, tmp_path, tmp_path / "out", "--scheme", "w4a16")


@pytest.mark.parametrize("keep", [0, 5, 200, -1])
def test_source_that_is_cut_short_is_refused(quant: Quant, checkpoint: Path, tmp_path: Path, keep: int) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_bytes((checkpoint / "config.json").read_bytes())
    (broken / "model.safetensors").write_bytes((checkpoint / "model.safetensors").read_bytes()[:keep])
    message = refused(quant, broken, tmp_path / "out", "--scheme", "w8a8-int8")
    assert "model.safetensors" in message
    assert "again" in message


def test_unknown_scheme_lists_the_known_ones(quant: Quant, checkpoint: Path, tmp_path: Path) -> None:
    message = refused(quant, checkpoint, tmp_path / "out", "--scheme", "w3a3")
    assert "w8a8-int8, w4a16, fp8-dynamic, fp8-block" in message


def test_group_size_that_does_not_divide_names_the_layer_and_what_fits(
    script: Script, quant: Quant, tmp_path: Path
) -> None:
    source = MAKE_CHECKPOINT.replace("(256, 384)", "(256, 352)")
    script(source, folder=tmp_path / "odd", extra={})
    message = refused(quant, tmp_path / "odd", tmp_path / "out", "--scheme", "w4a16", "--group-size", 64)
    assert DOWN_PROJ in message
    assert "Choose 32." in message


def test_group_size_that_no_engine_takes_is_refused(quant: Quant, checkpoint: Path, tmp_path: Path) -> None:
    message = refused(quant, checkpoint, tmp_path / "out", "--scheme", "w4a16", "--group-size", 48)
    assert "32, 64, 128" in message
    assert "no groups" in refused(quant, checkpoint, tmp_path / "out", "--scheme", "w8a8-int8", "--group-size", 64)


def test_quantized_source_is_refused(quant: Quant, int8: Path, tmp_path: Path) -> None:
    assert "quantized already" in refused(quant, int8, tmp_path / "out", "--scheme", "w4a16")


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_weights_that_are_not_finite_are_refused_and_leave_nothing(
    script: Script, quant: Quant, tmp_path: Path, value: str
) -> None:
    script(MAKE_CHECKPOINT, folder=tmp_path / "bad", extra={f"{DOWN_PROJ}.weight": value})
    message = refused(quant, tmp_path / "bad", tmp_path / "out", "--scheme", "w4a16")
    assert DOWN_PROJ in message
    assert "NaN or infinite" in message


def test_existing_output_is_never_overwritten(quant: Quant, checkpoint: Path, tmp_path: Path) -> None:
    precious = tmp_path / "out" / "precious"
    precious.parent.mkdir()
    precious.write_text("kept")
    assert "exists already" in refused(quant, checkpoint, tmp_path / "out", "--scheme", "w4a16")
    assert precious.read_text() == "kept"


def test_help_needs_no_torch(root: Path) -> None:
    source = "import sys, quant.cli; quant.cli._parser().format_help(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", source], cwd=root, timeout=30, check=False).returncode == 0


def test_module_runs_as_a_command(engine_python: Path, root: Path, tmp_path: Path) -> None:
    command = [engine_python, "-m", "quant", "rtn", tmp_path / "nowhere", tmp_path / "out", "--scheme", "w4a16"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("quant: There is no checkpoint directory")
