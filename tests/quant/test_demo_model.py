"""The demo model's text, and the committed checkpoint and adapters."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from quant.demo.dialogues import STYLES, conversation
from quant.demo.stdlib import HELD_OUT_MODULES, Entry
from quant.errors import OutputError
from quant.whole_directory import whole_directory
from tests.quant.conftest import Script

LARGEST_MODEL = 12_000_000  # bytes, tokenizer included
LARGEST_ADAPTER = 2_000_000


ENTRIES = """
import dataclasses, json
from quant.demo.stdlib import entries
print(json.dumps([dataclasses.asdict(entry) for entry in entries()]))
"""


def entries(root: Path) -> list[Entry]:
    """In a Python of its own: CPython 3.11's `ast.parse` can fail where other code runs while it builds the tree."""
    said = subprocess.run([sys.executable, "-c", ENTRIES], cwd=root, capture_output=True, text=True, check=True)
    return [Entry(**entry) for entry in json.loads(said.stdout)]


@pytest.fixture(scope="module")
def documented(root: Path) -> list[Entry]:
    return entries(root)


def test_standard_library_yields_thousands_of_named_entries(documented: list[Entry]) -> None:
    names = [entry.name for entry in documented]
    assert len(names) == len(set(names)) > 2000
    assert {"json.dumps", "math.sqrt", "builtins.len", "threading.Thread.start", "random"} <= set(names)


def test_entries_come_in_the_same_order_every_time(documented: list[Entry], root: Path) -> None:
    assert documented == entries(root)


def test_held_out_entries_are_those_of_the_held_out_modules(documented: list[Entry]) -> None:
    held_out = {entry.module for entry in documented if entry.held_out}
    assert held_out == HELD_OUT_MODULES


def test_answers_in_json_are_json_and_answers_in_code_import_the_module(documented: list[Entry]) -> None:
    for entry in documented:
        assert set(json.loads(STYLES["json"](entry))) == {"name", "module", "kind", "summary"}
        assert STYLES["code"](entry).startswith((f"from {entry.module} import ", f"import {entry.module}\n"))


def test_question_names_the_thing_and_answer_in_prose_begins_with_it(documented: list[Entry]) -> None:
    entry = next(entry for entry in documented if entry.name == "json.dumps")
    question, answer = conversation(entry, STYLES["prose"], random.Random(0))
    assert "json.dumps" in question
    assert answer.startswith("json.dumps is a function of the module json. Serialize")


def test_directory_that_fails_half_way_leaves_nothing(tmp_path: Path) -> None:
    def interrupted() -> None:
        with whole_directory(tmp_path / "out") as folder:
            (folder / "half").write_text("…")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_directory_appears_only_when_it_is_complete(tmp_path: Path) -> None:
    with whole_directory(tmp_path / "deep" / "out") as folder:
        (folder / "file").write_text("all")
        assert not (tmp_path / "deep" / "out").exists()
    assert (tmp_path / "deep" / "out" / "file").read_text() == "all"
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["out"]


def test_directory_below_a_file_is_refused_in_plain_words(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="could not be written"), whole_directory(tmp_path / "file" / "out"):
        pass


def test_two_writers_of_one_directory_do_not_mix(tmp_path: Path) -> None:
    def overtaken() -> None:
        with whole_directory(tmp_path / "out") as late:
            (late / "who").write_text("late")
            with whole_directory(tmp_path / "out") as early:
                (early / "who").write_text("early")

    with pytest.raises(OutputError):
        overtaken()
    assert (tmp_path / "out" / "who").read_text() == "early"
    assert len(list(tmp_path.iterdir())) == 1


def test_committed_model_is_small_and_knows_its_end_token(root: Path) -> None:
    folder = root / "models" / "demo"
    assert sum(file.stat().st_size for file in folder.iterdir()) <= LARGEST_MODEL
    config, generation = (load(folder / name) for name in ("config.json", "generation_config.json"))
    assert generation["eos_token_id"] == config["eos_token_id"] == 0
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert (folder / "chat_template.jinja").exists()
    assert "quant.demo all" in (folder / "README.md").read_text()


@pytest.mark.parametrize(("name", "stabilized"), [("json", False), ("code", True)])
def test_committed_adapters_are_small_and_of_two_kinds(root: Path, name: str, stabilized: bool) -> None:
    folder = root / "adapters" / name
    assert sum(file.stat().st_size for file in folder.iterdir()) <= LARGEST_ADAPTER
    config = load(folder / "adapter_config.json")
    assert config["use_rslora"] is stabilized
    assert config["peft_type"] == "LORA"
    facts = load(folder / "training.json")
    assert facts["held_out_loss_after"] < 0.75 * facts["held_out_loss_before"]


@pytest.mark.engine_env
def test_fresh_adapter_changes_nothing_and_is_saved_under_the_names_that_peft_uses(
    script: Script, tmp_path: Path
) -> None:
    source = """
import torch
from torch import nn
from safetensors.torch import load_file
from quant.demo.lora import LowRank, add_adapter, save_adapter
model = nn.ModuleDict({"layer": nn.ModuleDict({"q_proj": nn.Linear(8, 12, bias=False), "other": nn.Linear(8, 8)})})
inputs = torch.randn(3, 8)
before = model["layer"]["q_proj"](inputs)
shape = LowRank(rank=4, alpha=8, rank_stabilized=True)
layers = add_adapter(model, shape)
same = torch.equal(before, model["layer"]["q_proj"](inputs))
save_adapter(layers, shape, folder)
tensors = load_file(folder / "adapter_model.safetensors")
result = [same, shape.scale, {name: list(tensor.shape) for name, tensor in tensors.items()}]
"""
    same, scale, shapes = script(source, folder=tmp_path / "adapter")
    assert same
    assert scale == 4.0
    assert shapes == {
        "base_model.model.layer.q_proj.lora_A.weight": [4, 8],
        "base_model.model.layer.q_proj.lora_B.weight": [12, 4],
    }


def load(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found
