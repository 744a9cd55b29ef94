"""`quant run`: what a recipe makes, what it does not make twice, what it never overwrites."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from quant.catalogue import CATALOGUE
from server.models import read_card
from server.models.manifest import read_manifest
from tests.quant.conftest import Quant, Script

pytestmark = pytest.mark.engine_env

RECIPE = """\
source: {source}
variants:
  int8: {{method: rtn, scheme: w8a8-int8}}
  int4: {{method: rtn, scheme: w4a16, group_size: {group}}}
"""


def write(folder: Path, source: Path, group: int = 128) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(RECIPE.format(source=source, group=group), encoding="utf-8")
    return path


def inodes(folder: Path) -> dict[str, int]:
    return {file.name: file.stat().st_ino for file in folder.iterdir()}


def test_recipe_makes_every_variant_with_a_manifest(quant: Quant, checkpoint: Path, tmp_path: Path) -> None:
    done = quant("run", write(tmp_path, checkpoint))
    assert done.returncode == 0, done.stderr
    assert "2 variants, 2 made" in done.stdout
    out = tmp_path / "variants" / "int4"
    manifest = read_manifest(out)
    assert manifest is not None
    weights = (out / "model.safetensors").read_bytes()
    assert manifest.files["model.safetensors"] == {
        "sha256": hashlib.sha256(weights).hexdigest(),
        "size_bytes": len(weights),
    }
    assert (
        manifest.source["weights_sha256"] == hashlib.sha256((checkpoint / "model.safetensors").read_bytes()).hexdigest()
    )
    assert (manifest.method, manifest.scheme, manifest.tier) == ("rtn", "w4a16", "own")
    assert manifest.options == {"group_size": 128, "symmetric": True, "search": False}
    assert manifest.seconds is not None
    assert manifest.peak_memory_bytes is not None
    assert manifest.peak_memory_bytes > 10_000_000
    assert manifest.recipe == "recipe.yaml"
    assert "torch" in manifest.tools
    assert read_card(out).precision == "int4"


def test_second_run_makes_nothing(quant: Quant, checkpoint: Path, tmp_path: Path) -> None:
    recipe = write(tmp_path, checkpoint)
    quant("run", recipe)
    before = inodes(tmp_path / "variants" / "int4")
    done = quant("run", recipe)
    assert "2 variants, 0 made" in done.stdout
    assert inodes(tmp_path / "variants" / "int4") == before


def test_variant_that_was_deleted_comes_back_from_the_cache(quant: Quant, checkpoint: Path, tmp_path: Path) -> None:
    recipe = write(tmp_path, checkpoint)
    quant("run", recipe)
    out = tmp_path / "variants" / "int4"
    before = inodes(out)
    for file in out.iterdir():
        file.unlink()
    out.rmdir()
    assert "from the cache" in quant("run", recipe).stdout
    assert inodes(out) == before  # the same files by another name: no second copy


def test_damaged_entry_of_the_cache_is_made_again(quant: Quant, checkpoint: Path, tmp_path: Path) -> None:
    recipe = write(tmp_path, checkpoint)
    quant("run", recipe)
    for folder in (tmp_path / "variants").iterdir():
        if not folder.name.startswith("."):
            (folder / "model.safetensors").write_bytes(b"short")  # a hard link: the cache's as well
    done = quant("run", recipe, "--replace")
    assert done.returncode == 0, done.stderr
    assert read_card(tmp_path / "variants" / "int4").precision == "int4"


def test_quality_that_was_measured_since_changes_nothing(quant: Quant, checkpoint: Path, tmp_path: Path) -> None:
    recipe = write(tmp_path, checkpoint)
    quant("run", recipe)
    (tmp_path / "variants" / "int4" / "quality.json").write_text("{}")
    assert "2 variants, 0 made" in quant("run", recipe).stdout
    assert (tmp_path / "variants" / "int4" / "quality.json").exists()


def test_changed_recipe_replaces_a_variant_only_when_told(quant: Quant, checkpoint: Path, tmp_path: Path) -> None:
    quant("run", write(tmp_path, checkpoint))
    recipe = write(tmp_path, checkpoint, group=32)
    refused = quant("run", recipe)
    assert refused.returncode == 1
    assert "--replace" in refused.stderr
    assert read_card(tmp_path / "variants" / "int4").scheme == "pack-quantized W4A16 group 128"
    replaced = quant("run", recipe, "--replace")
    assert "2 variants, 1 made" in replaced.stdout, replaced.stderr
    assert read_card(tmp_path / "variants" / "int4").scheme == "pack-quantized W4A16 group 32"
    assert sorted(path.name for path in (tmp_path / "variants").iterdir()) == [".cache", "int4", "int8"]


def test_directory_of_somebody_else_is_never_replaced(quant: Quant, checkpoint: Path, tmp_path: Path) -> None:
    precious = tmp_path / "variants" / "int4" / "precious"
    precious.parent.mkdir(parents=True)
    precious.write_text("kept")
    done = quant("run", write(tmp_path, checkpoint), "--replace")
    assert done.returncode == 1
    assert "no recipe's work" in done.stderr
    assert precious.read_text() == "kept"


def test_dry_run_makes_nothing_and_says_what_would_be_made(quant: Quant, checkpoint: Path, tmp_path: Path) -> None:
    done = quant("run", write(tmp_path, checkpoint), "--dry-run")
    assert done.returncode == 0
    assert "int4: rtn w4a16, 0." in done.stdout
    assert "to make" in done.stdout
    assert not (tmp_path / "variants").exists()


def test_matrix_that_does_not_fit_is_found_before_anything_is_made(
    quant: Quant, script: Script, checkpoint: Path, tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"source: {checkpoint}\nvariants:\n  ok: {{method: rtn, scheme: w8a8-int8}}\n"
        "  bad: {method: rtn, scheme: fp8-block}\n"
    )
    done = quant("run", recipe)
    assert done.returncode == 1
    assert "line 4: variants.bad is not possible: model.layers.0.self_attn.q_proj.weight" in done.stderr
    assert not (tmp_path / "variants").exists()


def test_modules_can_be_left_out_by_name_or_pattern(quant: Quant, checkpoint: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    text = f"source: {checkpoint}\nvariants:\n  some: {{method: rtn, scheme: fp8-block, ignore: ['re:.*q_proj']}}\n"
    recipe.write_text(text)
    assert quant("run", recipe).returncode == 0
    config = json.loads((tmp_path / "variants" / "some" / "config.json").read_text())
    assert "model.layers.0.self_attn.q_proj" in config["quantization_config"]["ignore"]
    recipe.write_text(text.replace("re:.*q_proj", "model.layers.9.q_proj"))
    done = quant("run", recipe, "--replace")
    assert done.returncode == 1
    assert "`ignore` names 'model.layers.9.q_proj'" in done.stderr


def test_quantized_source_is_refused_by_a_recipe(quant: Quant, int8: Path, tmp_path: Path) -> None:
    assert "quantized already" in quant("run", write(tmp_path, int8)).stderr


def test_source_that_is_not_there_is_named(quant: Quant, tmp_path: Path) -> None:
    assert "There is no checkpoint directory" in quant("run", write(tmp_path, tmp_path / "nowhere")).stderr


def test_model_of_the_hub_without_a_network_says_what_to_do(engine_python: Path, root: Path, tmp_path: Path) -> None:
    recipe = write(tmp_path, Path("example/absent-model"))
    environ = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub"), "PATH": "/usr/bin:/bin"}
    command = [engine_python, "-m", "quant", "run", recipe]
    done = subprocess.run(command, cwd=root, env=environ, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 1, done.stderr
    assert "not in the local hub cache" in done.stderr
    assert "hf download example/absent-model" in done.stderr


def test_control_plane_that_does_not_answer_is_named(quant: Quant, checkpoint: Path, tmp_path: Path) -> None:
    done = quant("run", write(tmp_path, checkpoint), "--control", "http://127.0.0.1:9")
    assert done.returncode == 1
    assert "http://127.0.0.1:9/api/energy cannot be read" in done.stderr


SLOW = """
import sys, time
import quant.run
from quant.cli import main
real = quant.run.write_converted
def slow(checkpoint, conversion, folder, advance):
    real(checkpoint, conversion, folder, advance)
    if "int4" in str(conversion).lower() or "W4A16" in str(conversion):
        (folder / "reached").write_text("")
        time.sleep(60)
quant.run.write_converted = slow
sys.exit(main(sys.argv[1:]))
"""


def test_interrupted_run_goes_on_where_it_was(
    engine_python: Path, root: Path, quant: Quant, checkpoint: Path, tmp_path: Path
) -> None:
    recipe = write(tmp_path, checkpoint)
    process = subprocess.Popen([engine_python, "-c", SLOW, "run", recipe], cwd=root, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 100
    while not list((tmp_path / "variants").glob(".cache/.*.partial-*/reached")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(timeout=60) == 130
    assert [path.name for path in sorted((tmp_path / "variants").iterdir())] == [".cache", "int8"]
    assert not list((tmp_path / "variants" / ".cache").glob(".*.partial-*"))
    done = quant("run", recipe)
    assert "2 variants, 1 made" in done.stdout, done.stderr


def test_every_own_method_of_the_catalogue_can_be_made(script: Script) -> None:
    assert script("from quant.methods import METHODS\nresult = list(METHODS)") == list(CATALOGUE["rtn"].schemes)
