"""Large checkpoints in small memory, broken sources, full disks, interrupts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from quant.errors import OutputError
from quant.whole_directory import remove_leftovers, whole_directory
from tests.quant.conftest import MAKE_CHECKPOINT, Quant, Script

MAKE_LARGE = """
import torch
from safetensors.torch import save_file
torch.manual_seed(0)
folder.mkdir(parents=True)
weight_map = {}
for layer in range(2):
    tensors = {f"model.layers.{layer}.mlp.up_proj.weight": (torch.randn(rows, 2048) * 0.02).bfloat16(),
               f"model.layers.{layer}.mlp.up_proj.bias": torch.randn(rows).bfloat16()}
    if layer == 0:
        tensors["model.embed_tokens.weight"] = torch.randn(1000, 2048).bfloat16()
        tensors["model.step"] = torch.tensor(7)
    file = f"model-{layer + 1:05}-of-00002.safetensors"
    save_file(tensors, folder / file)
    weight_map |= dict.fromkeys(tensors, file)
(folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
(folder / "config.json").write_text("{}")
result = None
"""
"""`rows` of 2048 inputs in each of two files."""


@pytest.fixture(scope="module")
def large(script: Script, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """About 70 MB; tests only read it."""
    folder = tmp_path_factory.mktemp("large") / "source"
    script(MAKE_LARGE, folder=folder, rows=8192)
    return folder


@pytest.mark.engine_env
@pytest.mark.parametrize("scheme", ["w4a16", "w8a8-int8", "fp8-block"])
def test_stream_of_blocks_writes_what_the_whole_matrix_gives(
    script: Script, large: Path, tmp_path: Path, scheme: str
) -> None:
    source = """
import torch
from quant.checkpoint import open_checkpoint
from quant.methods import Options, method_of
from quant.rtn import round_to_nearest
method = method_of(scheme, Options())
round_to_nearest(large, out, method)
before = dict(pair for file in open_checkpoint(large).files for pair in open_checkpoint(large).tensors(file))
after = dict(pair for file in open_checkpoint(out).files for pair in open_checkpoint(out).tensors(file))
module = "model.layers.1.mlp.up_proj"
whole = method.quantize(before[f"{module}.weight"])
result = {part: torch.equal(after[f"{module}.{part}"].view(torch.uint8), value.view(torch.uint8))
          for part, value in whole.items()}
for name in (f"{module}.bias", "model.embed_tokens.weight", "model.step"):
    result[name] = torch.equal(before[name], after[name])
"""
    found = script(source, large=large, out=tmp_path / "out", scheme=scheme)
    assert found == dict.fromkeys(found, True)


@pytest.mark.engine_env
def test_memory_does_not_grow_with_the_matrices(script: Script, tmp_path: Path) -> None:
    script(MAKE_LARGE, folder=tmp_path / "source", rows=65536)
    source = """
import re, threading
from quant.methods import Options, method_of
from quant.rtn import round_to_nearest
def anonymous():
    return int(re.search(r"RssAnon:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024
before, peak, ended = anonymous(), [0], threading.Event()
def watch():
    while not ended.wait(0.005):
        peak[0] = max(peak[0], anonymous())
watcher = threading.Thread(target=watch)
watcher.start()
round_to_nearest(folder / "source", folder / "out", method_of("w4a16", Options()))
ended.set()
watcher.join()
result = peak[0] - before
"""
    size = sum(file.stat().st_size for file in (tmp_path / "source").glob("*.safetensors"))
    assert size > 500e6
    assert script(source, folder=tmp_path) < 100  # MiB above what Python and torch hold anyhow


def broken_index(folder: Path, large: Path, change: dict[str, Any]) -> Path:
    folder.mkdir()
    for file in large.iterdir():
        os.link(file, folder / file.name)
    index = folder / "model.safetensors.index.json"
    weight_map = json.loads(index.read_text())["weight_map"]
    index.unlink()
    index.write_text(json.dumps({"weight_map": weight_map | change}))
    return folder


@pytest.mark.engine_env
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"model.lost.weight": "model-00003-of-00002.safetensors"},
            "model-00003-of-00002.safetensors (with model.lost",
        ),
        ({"model.lost.weight": "model-00001-of-00002.safetensors"}, "holds model.lost.weight, which it does not"),
        ({"model.lost.weight": "../model.safetensors"}, "has no weight_map from tensors to safetensors files"),
        ({"model.lost.weight": 3}, "has no weight_map from tensors to safetensors files"),
    ],
)
def test_index_that_is_wrong_is_refused(
    quant: Quant, large: Path, tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    done = quant("rtn", broken_index(tmp_path / "broken", large, change), tmp_path / "out", "--scheme", "w4a16")
    assert done.returncode == 1
    assert said in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["broken"]


@pytest.mark.engine_env
def test_value_that_is_not_finite_in_a_tensor_that_is_only_copied_is_found(
    script: Script, quant: Quant, tmp_path: Path
) -> None:
    script(MAKE_CHECKPOINT, folder=tmp_path / "bad", extra={"model.norm.weight": "nan"})
    done = quant("rtn", tmp_path / "bad", tmp_path / "out", "--scheme", "w4a16")
    assert "model.norm.weight holds NaN or infinite values" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.engine_env
def test_damaged_header_names_the_tensor(quant: Quant, checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "bad").mkdir()
    data = (checkpoint / "model.safetensors").read_bytes()
    (tmp_path / "bad" / "config.json").write_text("{}")
    (tmp_path / "bad" / "model.safetensors").write_bytes(data.replace(b"[96,256]", b"[96,255]"))
    done = quant("rtn", tmp_path / "bad", tmp_path / "out", "--scheme", "w4a16")
    assert done.returncode == 1
    assert "q_proj.weight' has 49152 bytes, which is not what its shape [96, 255]" in done.stderr


FULL = """
import resource, signal, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
from quant.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.engine_env
def test_disk_that_takes_no_more_leaves_nothing(engine_python: Path, root: Path, large: Path, tmp_path: Path) -> None:
    command = [engine_python, "-c", FULL, "rtn", large, tmp_path / "out", "--scheme", "w4a16"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 1, done.stderr
    assert "out could not be written: File too large" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.engine_env
def test_variant_that_does_not_fit_on_the_disk_is_refused_before_it_is_written(
    script: Script, large: Path, tmp_path: Path
) -> None:
    source = """
import shutil
from collections import namedtuple
import quant.stream
from quant.errors import OutputError
from quant.methods import Options, method_of
from quant.rtn import round_to_nearest
real = shutil.disk_usage
quant.stream.shutil.disk_usage = lambda path: real(path)._replace(free=1_000_000)
try:
    round_to_nearest(large, folder / "out", method_of("w4a16", Options()))
except OutputError as exc:
    result = [str(exc), [path.name for path in folder.iterdir()]]
finally:
    quant.stream.shutil.disk_usage = real
"""
    message, left = script(source, large=large, folder=tmp_path)
    assert "has 1.0 MB free, and the variant takes" in message
    assert left == []


SLOW = """
import sys, time
import quant.stream
from quant.cli import main
real = quant.stream._Block.write
def slow(self, tensor, first, last):
    real(self, tensor, first, last)
    time.sleep(0.5)
quant.stream._Block.write = slow
sys.exit(main(sys.argv[1:]))
"""


def started(engine_python: Path, root: Path, large: Path, folder: Path) -> subprocess.Popen[str]:
    """A conversion that has begun to write, and takes its time."""
    command = [engine_python, "-c", SLOW, "rtn", large, folder / "out", "--scheme", "w4a16"]
    process = subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 100
    while not list(folder.glob(".out.partial-*/*.safetensors")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return process


@pytest.mark.engine_env
def test_interrupt_leaves_nothing_and_says_so(engine_python: Path, root: Path, large: Path, tmp_path: Path) -> None:
    process = started(engine_python, root, large, tmp_path)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=100)
    assert process.returncode == 130
    assert error == "quant: interrupted; what was finished stays, what was not is gone.\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.engine_env
def test_what_a_killed_run_left_is_removed_by_the_next(
    engine_python: Path, root: Path, large: Path, tmp_path: Path, quant: Quant, checkpoint: Path
) -> None:
    process = started(engine_python, root, large, tmp_path)
    process.kill()
    process.communicate(timeout=100)
    assert len(list(tmp_path.glob(".out.partial-*"))) == 1
    assert quant("rtn", checkpoint, tmp_path / "other", "--scheme", "w4a16").returncode == 0
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


def test_directory_that_is_being_written_is_no_leftover(tmp_path: Path) -> None:
    with whole_directory(tmp_path / "out") as folder:
        assert remove_leftovers(tmp_path) == []
        assert folder.exists()
    assert (tmp_path / "out").is_dir()


def test_disk_error_inside_the_block_names_the_directory_and_the_reason(tmp_path: Path) -> None:
    def full() -> None:
        with whole_directory(tmp_path / "out"):
            raise OSError(28, "No space left on device")

    with pytest.raises(OutputError, match="out could not be written: No space left on device"):
        full()
    assert list(tmp_path.iterdir()) == []
