"""llm-compressor's methods on the demo model: what lands on the disk, and what is refused."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from quant.compressor.table import COMPRESSOR_METHODS
from server.models import read_checkpoint
from tests.quant.compressor_worker import quant_script  # noqa: F401 - a fixture
from tests.quant.conftest import Script

pytestmark = [pytest.mark.engine_env, pytest.mark.quant_env, pytest.mark.timeout(900)]

SMALL = {"samples": 4, "length": 64}

# Method → options, what the card must say: precision, activation bits, bits of the KV cache.
MADE: dict[str, tuple[dict[str, Any], tuple[str, int | None, int | None]]] = {
    "gptq": (SMALL, ("int4", 16, None)),
    "awq": (SMALL, ("int4", 16, None)),
    "smoothquant": (SMALL, ("int8", 8, None)),
    "fp8-static": (SMALL, ("fp8", 8, None)),
    "kv-cache": ({**SMALL, "scheme": "fp8-dynamic"}, ("fp8", 8, 8)),
    "nvfp4": (SMALL, ("nvfp4", 4, None)),
    "rtn-reference": ({}, ("int4", 16, None)),
}

RUN = """
import contextlib, io
from quant.compressor.__main__ import main
out, err = io.StringIO(), io.StringIO()
with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
    code = main([str(argument) for argument in arguments])
result = {"code": code, "out": out.getvalue(), "err": err.getvalue()}
"""

TENSORS = """
from safetensors.torch import load_file
result = {name: [str(t.dtype), list(t.shape)] for name, t in load_file(folder / "model.safetensors").items()}
"""

SPOIL = """
import torch
from safetensors.torch import load_file, save_file
tensors = load_file(folder / "model.safetensors")
tensors["model.layers.1.mlp.up_proj.weight"][3, 5] = float("nan")
save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
result = None
"""


@dataclass(frozen=True, slots=True)
class Done:
    """How a run of `python -m quant.compressor` ended."""

    code: int
    out: str
    err: str


def run(quant_script: Script, method: str, source: Path, out: Path, options: dict[str, Any]) -> Done:  # noqa: F811
    arguments = [method, str(source), str(out), "--options", json.dumps(options)]
    return Done(**quant_script(RUN, arguments=arguments))


def refused(quant_script: Script, method: str, source: Path, out: Path, options: dict[str, Any]) -> str:  # noqa: F811
    """The last line on stderr of a refusal, after which nothing is left behind."""
    around = set(out.parent.iterdir())
    done = run(quant_script, method, source, out, options)
    assert done.code == 1, done
    assert set(out.parent.iterdir()) == around
    last = done.err.splitlines()[-1]
    assert last.startswith("quant: ")
    return last


@pytest.fixture(scope="module")
def demo(root: Path) -> Path:
    """The committed model; tests only read it."""
    return root / "models" / "demo"


@pytest.fixture
def copy(demo: Path, tmp_path: Path) -> Path:
    """A copy of the committed model that a test may spoil."""
    shutil.copytree(demo, tmp_path / "source")
    return tmp_path / "source"


def test_every_method_is_made_here() -> None:
    assert MADE.keys() == COMPRESSOR_METHODS.keys()


@pytest.mark.parametrize("method", MADE)
def test_method_makes_a_whole_variant_that_the_card_describes(
    quant_script: Script,  # noqa: F811
    demo: Path,
    tmp_path: Path,
    method: str,
) -> None:
    options, (precision, activation_bits, kv_bits) = MADE[method]
    out = tmp_path / "out"
    done = run(quant_script, method, demo, out, options)
    assert done.code == 0, done.err[-2000:]
    said = json.loads(done.out.splitlines()[-1])
    assert said["tools"]["llmcompressor"] == "0.14.0.1"
    assert said["peak_memory_bytes"] > 100e6
    assert (said["calibration_sha256"] is None) == (method == "rtn-reference")
    card = read_checkpoint(out).card
    assert (card.precision, card.activation_bits, card.kv_bits) == (precision, activation_bits, kv_bits)
    assert {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"} <= {file.name for file in out.iterdir()}
    assert not list(out.glob("quality*"))


def test_calibration_from_a_file_repeats_with_its_seed_and_groups_are_as_asked(
    quant_script: Script,  # noqa: F811
    demo: Path,
    tmp_path: Path,
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("".join(f"line {number}: the sum of {number} and 1 is {number + 1}\n" for number in range(200)))
    options = {**SMALL, "calibration": str(text), "group_size": 32}
    told = {}
    for name, seed in [("a", 1), ("b", 1), ("c", 2)]:
        done = run(quant_script, "gptq", demo, tmp_path / name, {**options, "seed": seed})
        assert done.code == 0, done.err[-2000:]
        weights = (tmp_path / name / "model.safetensors").read_bytes()
        told[name] = (json.loads(done.out.splitlines()[-1])["calibration_sha256"], weights)
    assert told["a"] == told["b"]
    assert told["a"][0] != told["c"][0]
    tensors = quant_script(TENSORS, folder=tmp_path / "a")
    assert tensors["model.layers.0.mlp.down_proj.weight_scale"] == ["torch.bfloat16", [256, 768 // 32]]


def test_text_that_is_too_short_says_how_far_it_goes(quant_script: Script, demo: Path, tmp_path: Path) -> None:  # noqa: F811
    (tmp_path / "text.txt").write_text("too short")
    options = {"calibration": str(tmp_path / "text.txt"), "samples": 4, "length": 64}
    assert "is 0 samples of 64; 4 are asked for" in refused(quant_script, "gptq", demo, tmp_path / "out", options)


@pytest.mark.parametrize(("content", "said"), [(None, "cannot be read"), (b"\xff\xfe\x00", "not UTF-8")])
def test_text_that_cannot_be_read_is_named(
    quant_script: Script,  # noqa: F811
    demo: Path,
    tmp_path: Path,
    content: bytes | None,
    said: str,
) -> None:
    if content is not None:
        (tmp_path / "text.txt").write_bytes(content)
    message = refused(quant_script, "awq", demo, tmp_path / "out", {"calibration": str(tmp_path / "text.txt")})
    assert said in message
    assert "text.txt" in message


def test_samples_longer_than_the_model_are_refused(quant_script: Script, demo: Path, tmp_path: Path) -> None:  # noqa: F811
    message = refused(quant_script, "gptq", demo, tmp_path / "out", {"samples": 1, "length": 4096})
    assert "longer than the model's 2048 positions" in message


def test_weights_that_are_not_finite_are_refused(quant_script: Script, copy: Path, tmp_path: Path) -> None:  # noqa: F811
    quant_script(SPOIL, folder=copy)
    message = refused(quant_script, "gptq", copy, tmp_path / "out", SMALL)
    assert "model.layers.1.mlp.up_proj.weight holds NaN" in message


def test_quantized_source_is_refused(quant_script: Script, demo: Path, tmp_path: Path) -> None:  # noqa: F811
    assert run(quant_script, "rtn-reference", demo, tmp_path / "int4", {}).code == 0
    assert "quantized already" in refused(quant_script, "gptq", tmp_path / "int4", tmp_path / "out", SMALL)


def test_source_without_a_tokenizer_is_refused(quant_script: Script, copy: Path, tmp_path: Path) -> None:  # noqa: F811
    for file in copy.glob("tokenizer*"):
        file.unlink()
    assert "could not load the source" in refused(quant_script, "gptq", copy, tmp_path / "out", SMALL)


def test_existing_output_is_never_overwritten(quant_script: Script, demo: Path, tmp_path: Path) -> None:  # noqa: F811
    (tmp_path / "out").mkdir()
    assert "exists already" in refused(quant_script, "gptq", demo, tmp_path / "out", SMALL)


def test_wrong_options_are_refused_without_torch(quant_env: Path, root: Path, tmp_path: Path) -> None:
    source = (
        "import sys; from quant.compressor.__main__ import main; "
        f"code = main(['gptq', '.', {str(tmp_path / 'out')!r}, '--options', '[1]']); "
        "sys.exit(code if 'torch' not in sys.modules else 9)"
    )
    done = subprocess.run([quant_env, "-c", source], cwd=root, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1, done.stderr
    assert "no JSON object" in done.stderr
