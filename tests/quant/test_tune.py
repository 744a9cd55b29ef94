"""`quant tune`, in the quant environment, on the demo model."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from quant.commands import tune as command
from tests.quant.quant_environment import QuantEnvironment, quant_environment  # noqa: F401 - a fixture

pytestmark = [pytest.mark.engine_env, pytest.mark.timeout(600)]

QUICK = ["--steps", "3", "--rows", "2", "--length", "48", "--rank", "4"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "data.jsonl"
    lines = [{"prompt": f"What is {number} times two? ", "completion": f"{2 * number}."} for number in range(20)]
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return path


@pytest.fixture
def base(root: Path) -> Path:
    return root / "models" / "demo"


def trained(quant: QuantEnvironment, base: Path, data: Path, out: Path, *options: str) -> dict[str, Any]:
    done = quant.run("tune", base, data, out, *QUICK, *options)
    assert done.returncode == 0, done.stderr
    facts: dict[str, Any] = json.loads((out / "training.json").read_text(encoding="utf-8"))
    return facts


def digest(folder: Path) -> str:
    (file,) = folder.glob("*.safetensors")
    return hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("method", "way"),
    [("lora", "serve"), ("lora+", "serve"), ("rslora", "serve"), ("dora", "merge"), ("pissa", "serve")],
)
def test_adapter_is_trained_and_its_way_is_known(
    quant_environment: QuantEnvironment,  # noqa: F811
    base: Path,
    data: Path,
    tmp_path: Path,
    method: str,
    way: str,
) -> None:
    facts = trained(quant_environment, base, data, tmp_path / "out", "--method", method)
    said = quant_environment.run("adapter", "inspect", tmp_path / "out", "--base", base, "--json")
    assert json.loads(said.stdout)["way"] == way, said.stderr
    assert facts["held_out_loss_after"] < facts["held_out_loss_before"]
    assert facts["metrics"]["al_seconds_per_step"] > 0
    assert 0 < facts["metrics"]["amu_ratio"] < 1
    assert facts["trained_parameters"] > 0


@pytest.mark.parametrize("method", ["freeze", "full"])
def test_model_is_trained_into_a_checkpoint(
    quant_environment: QuantEnvironment,  # noqa: F811
    base: Path,
    data: Path,
    tmp_path: Path,
    method: str,
) -> None:
    facts = trained(quant_environment, base, data, tmp_path / "out", "--method", method)
    assert facts["held_out_loss_after"] < facts["held_out_loss_before"]
    assert (facts["trained_parameters"] < 2_000_000) == (method == "freeze")
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == (base / "tokenizer.json").read_bytes()
    assert json.loads((tmp_path / "out" / "config.json").read_text(encoding="utf-8"))["dtype"] == "bfloat16"


def test_equal_seeds_give_equal_weights_and_others_do_not(
    quant_environment: QuantEnvironment,  # noqa: F811
    base: Path,
    data: Path,
    tmp_path: Path,
) -> None:
    for name, seed in {"one": "1", "two": "1", "three": "2"}.items():
        trained(quant_environment, base, data, tmp_path / name, "--seed", seed)
    assert digest(tmp_path / "one") == digest(tmp_path / "two") != digest(tmp_path / "three")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--layers", "99", "--method", "freeze"], "--layers 99: the model has 4"),
        (["--device", "cuda:99"], "--device cuda:99"),
    ],
)
def test_training_that_cannot_be_leaves_nothing(
    quant_environment: QuantEnvironment,  # noqa: F811
    base: Path,
    data: Path,
    tmp_path: Path,
    options: list[str],
    said: str,
) -> None:
    done = quant_environment.run("tune", base, data, tmp_path / "out", *QUICK, *options)
    assert done.returncode == 1
    assert said in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_broken_line_is_named(
    quant_environment: QuantEnvironment,  # noqa: F811
    base: Path,
    tmp_path: Path,
) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text('{"prompt": "a", "completion": "b"}\n{"prompt": "a"}\n', encoding="utf-8")
    done = quant_environment.run("tune", base, path, tmp_path / "out", *QUICK)
    assert done.returncode == 1
    assert "line 2" in done.stderr


def test_command_line_knows_every_method(root: Path) -> None:
    source = (root / "quant/tune/methods.py").read_text(encoding="utf-8")
    assert all(f'    "{name}": TuneMethod(' in source for name in command._METHODS)
