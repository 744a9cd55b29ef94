"""The contract of every own scheme, and compressed-tensors' own arithmetic as the judge of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.quant.conftest import MAKE_CHECKPOINT, Quant, Script

pytestmark = pytest.mark.engine_env

CHOICES: dict[str, dict[str, Any]] = {
    "int8": {"scheme": "w8a8-int8"},
    "int8-precise": {"scheme": "w8a8-int8", "precise": True},
    "int4": {"scheme": "w4a16"},
    "int4-g32": {"scheme": "w4a16", "group_size": 32},
    "int4-g64-zero": {"scheme": "w4a16", "group_size": 64, "symmetric": False},
    "int4-search": {"scheme": "w4a16", "search": True},
    "fp8": {"scheme": "fp8-dynamic"},
    "fp8-block": {"scheme": "fp8-block"},
}
LARGEST_STEP = {"int8": 1 / 127, "int8-precise": 0.505 / 127, "fp8": 0.55 / 14, "fp8-block": 0.55 / 14}
"""Half of the coarsest step at the largest weight, relative to it, and some for what bf16 rounds."""

START = """
import torch
from quant.methods import METHODS, Options, method_of, method_on_disk
from quant.safetensors_file import TensorSpec
choice = dict(choice)
method = method_of(choice.pop("scheme"), Options(**choice))
torch.manual_seed(seed)
weight = (torch.randn(256, 384) * 0.05).to(getattr(torch, dtype))
weight[0] = 0
"""


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("name", CHOICES)
def test_quantized_tensors_are_those_of_the_layout_and_blocks_of_rows_make_the_same(
    script: Script, name: str, dtype: str
) -> None:
    source = """
before = weight.clone()
stored = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}[dtype]
layout = method.layout(TensorSpec(stored, (256, 384)))
parts = method.quantize(weight)
blocks = [method.quantize(weight[start : start + 128]) for start in (0, 128)]
result = {
    "planned": {part: [str(spec.torch_dtype), list(spec.shape)] for part, spec in layout.items()},
    "made": {part: [str(value.dtype), list(value.shape)] for part, value in parts.items()},
    "blocks": all(
        torch.equal(torch.cat([block[part] for block in blocks]).view(torch.uint8), value.view(torch.uint8))
        for part, value in parts.items() if part != "weight_shape"
    ),
    "untouched": torch.equal(before, weight),
    "together": 128 % method.rows_together,
}
"""
    found = script(START + source, choice=CHOICES[name], dtype=dtype, seed=1)
    assert found["made"] == found["planned"]
    assert found["blocks"]
    assert found["untouched"]
    assert found["together"] == 0


@pytest.mark.parametrize("name", CHOICES)
def test_reader_that_dequantizes_gives_back_what_was_rounded(script: Script, name: str) -> None:
    source = """
config = method.config(["lm_head"])
read = method_on_disk(config).dequantize(method.quantize(weight))
error = (read - weight.float()).abs()
result = [(error.max() / weight.float().abs().max()).item(), (error.norm() / weight.float().norm()).item(),
          read[0].abs().max().item(), list(read.shape)]
"""
    largest, relative, zeros, shape = script(START + source, choice=CHOICES[name], dtype="bfloat16", seed=2)
    assert shape == [256, 384]
    assert zeros == 0
    if name != "int4-search":  # which cuts the largest for the sake of the others
        assert 0 < largest <= LARGEST_STEP.get(name, 0.55 / 7)
    assert 0 < relative < (0.15 if "int4" in name else 0.04)


def test_zero_points_make_one_sided_weights_cheaper(script: Script) -> None:
    source = """
errors = []
for symmetric in (True, False):
    method = method_of("w4a16", Options(symmetric=symmetric))
    one_sided = weight.abs() + 0.02
    errors.append((method.dequantize(method.quantize(one_sided)) - one_sided.float()).norm().item())
result = errors
"""
    symmetric, asymmetric = script(START + source, choice=CHOICES["int4"], dtype="bfloat16", seed=3)
    assert asymmetric < 0.6 * symmetric


def test_searched_scales_lose_less_than_the_largest_magnitudes_do(script: Script) -> None:
    source = """
result = []
for search in (False, True):
    method = method_of("w4a16", Options(search=search))
    result.append((method.dequantize(method.quantize(weight)) - weight.float()).norm().item())
"""
    plain, searched = script(START + source, choice=CHOICES["int4"], dtype="bfloat16", seed=4)
    assert searched < 0.95 * plain


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("name", [name for name in CHOICES if name not in {"int4-search", "int8-precise"}])
def test_scales_and_codes_are_those_of_compressed_tensors_to_the_bit(script: Script, name: str, dtype: str) -> None:
    source = """
from compressed_tensors.compressors.pack_quantized.base import PackedQuantizationCompressor
from compressed_tensors.compressors.naive_quantized.base import FloatQuantizationCompressor, IntQuantizationCompressor
from compressed_tensors.quantization import QuantizationScheme
from compressed_tensors.quantization.utils import calculate_qparams
group = method.config([])["config_groups"]["group_0"]
scheme = QuantizationScheme(targets=["Linear"], weights=group["weights"], input_activations=group["input_activations"])
weights, size = scheme.weights, scheme.weights.group_size
if weights.strategy == "block":
    shaped = weight.view(2, 128, 3, 128).transpose(1, 2).flatten(2)
else:
    shaped = weight.view(256, -1, size or 384)
scale, zero = calculate_qparams(shaped.amin(-1), shaped.amax(-1), weights)
maker = {"pack-quantized": PackedQuantizationCompressor, "int-quantized": IntQuantizationCompressor,
         "float-quantized": FloatQuantizationCompressor}[method.format]
state = {"weight": weight, "weight_scale": scale, "weight_zero_point": zero}
theirs = maker.compress(state, scheme)
ours = method.quantize(weight)
raw = lambda tensor: tensor.contiguous().view(torch.uint8)
result = {part: torch.equal(raw(value), raw(theirs[part].to(value.dtype))) for part, value in ours.items()}
assert set(theirs) - {"weight_zero_point"} <= set(ours), theirs.keys()
"""
    # A row of zeros has no zero point of its own there (0 / 0), so the weights have none.
    start = START.replace("weight[0] = 0\n", "")
    found = script(start + source, choice=CHOICES[name], dtype=dtype, seed=5)
    assert found == dict.fromkeys(found, True)


def test_rounding_in_float32_loses_less_than_in_bf16(script: Script) -> None:
    source = """
result = []
for precise in (False, True):
    method = method_of("w8a8-int8", Options(precise=precise))
    result.append((method.dequantize(method.quantize(weight)) - weight.float()).norm().item())
"""
    plain, precise = script(START + source, choice=CHOICES["int8"], dtype="bfloat16", seed=4)
    assert precise < 0.95 * plain


def test_packed_words_come_apart_as_they_were_put_together(script: Script) -> None:
    source = """
import torch
from quant.methods.int4_words import pack, unpack
torch.manual_seed(0)
result = all(
    torch.equal(unpack(pack(values)), values)
    for rows, columns in ((1, 8), (3, 64), (17, 8), (5, 1024))
    for values in [torch.randint(-8, 8, (rows, columns), dtype=torch.int8)]
)
"""
    assert script(source)


@pytest.mark.parametrize(("dtype", "stored"), [("bf16", "BF16"), ("fp16", "F16"), ("fp32", "F32")])
def test_cast_gives_every_tensor_and_the_configuration_the_new_type(
    script: Script, checkpoint: Path, tmp_path: Path, dtype: str, stored: str
) -> None:
    source = """
from quant.checkpoint import open_checkpoint
from quant.dequantize import read_weights
from quant.methods.cast import Cast
from quant.stream import write_converted
out.mkdir()
write_converted(open_checkpoint(before), Cast.to(dtype), out)
after = open_checkpoint(out)
old, new = read_weights(open_checkpoint(before)), read_weights(after)
result = [sorted({spec.dtype for specs in after.files.values() for spec in specs.values()}),
          max((old[name] - new[name]).abs().max().item() for name in old), after.config.get("dtype")]
"""
    dtypes, error, named = script(source, before=checkpoint, out=tmp_path / "out", dtype=dtype)
    assert dtypes == [stored]
    assert error <= 2**-24  # below fp16's smallest normal numbers bf16 has more digits
    assert named == {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}[dtype]


def test_cast_beyond_the_types_range_is_refused(script: Script, quant: Quant, tmp_path: Path) -> None:
    script(MAKE_CHECKPOINT, folder=tmp_path / "large", extra={"model.norm.weight": "1e6"})
    (tmp_path / "r.yaml").write_text("source: large\nvariants:\n  half: {method: cast, dtype: fp16}\n")
    done = quant("run", tmp_path / "r.yaml")
    assert done.returncode == 1
    assert "model.norm.weight holds values beyond the range of fp16" in done.stderr
    assert not (tmp_path / "variants" / "half").exists()


def test_block_that_does_not_fit_names_the_layer_and_another_way(
    quant: Quant, checkpoint: Path, tmp_path: Path
) -> None:
    done = quant("rtn", checkpoint, tmp_path / "out", "--scheme", "fp8-block")
    assert done.returncode == 1
    assert "q_proj.weight cannot be quantized: its 96 x 256 weights" in done.stderr
    assert "fp8-dynamic" in done.stderr
