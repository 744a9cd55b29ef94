"""A small synthetic checkpoint, and ways to run code in the engine environment."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

Quant = Callable[..., subprocess.CompletedProcess[str]]
Script = Callable[..., Any]

MAKE_CHECKPOINT = """
import torch
from safetensors.torch import save_file
torch.manual_seed(0)
shapes = {
    "model.embed_tokens.weight": (64, 256),
    "model.layers.0.self_attn.q_proj.weight": (96, 256),
    "model.layers.0.mlp.gate.weight": (8, 256),
    "model.layers.0.mlp.down_proj.weight": (256, 384),
    "model.norm.weight": (256,),
}
tensors = {name: torch.randn(shape).mul(0.05).bfloat16() for name, shape in shapes.items()}
tensors["model.layers.0.self_attn.q_proj.weight"][0] = 0
for name, value in extra.items():
    tensors[name] = torch.full(shapes[name], float(value)).bfloat16()
folder.mkdir(parents=True)
save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
(folder / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"], "hidden_size": 256}))
(folder / "tokenizer.json").write_text("{}")
(folder / "README.md").write_text("about the original")
(folder / "quality.json").write_text("{}")
result = sorted(tensors)
"""


@pytest.fixture(scope="session")
def engine_process(engine_python: Path, root: Path) -> Iterator[subprocess.Popen[str]]:
    """One Python of the engine environment for the whole run, so that torch is imported once."""
    command = [engine_python, "-u", "-m", "tests.quant.engine_worker"]
    with subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.terminate()


@pytest.fixture(scope="session")
def script(engine_process: subprocess.Popen[str]) -> Script:
    """Run Python source in the engine environment with keyword arguments as variables; what it leaves in `result`."""

    def run(source: str, **variables: Any) -> Any:
        paths = [name for name, value in variables.items() if isinstance(value, Path)]
        answer = _ask(engine_process, {"source": source, "variables": variables, "paths": paths})
        assert answer["error"] is None, answer["error"]
        return answer["result"]

    return run


@pytest.fixture(scope="session")
def quant(engine_process: subprocess.Popen[str]) -> Quant:
    """Run the command line of `python -m quant` in the engine environment."""

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [str(argument) for argument in arguments]
        answer = _ask(engine_process, {"arguments": command})
        return subprocess.CompletedProcess(command, answer["code"], answer["stdout"], answer["stderr"])

    return run


def _ask(process: subprocess.Popen[str], job: dict[str, Any]) -> dict[str, Any]:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(job, default=str) + "\n")
    process.stdin.flush()
    line = process.stdout.readline()
    assert line, "the engine environment's Python ended"
    answer: dict[str, Any] = json.loads(line)
    return answer


@pytest.fixture(scope="session")
def checkpoint(script: Script, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic bf16 checkpoint; tests only read it."""
    folder = tmp_path_factory.mktemp("source") / "tiny"
    script(MAKE_CHECKPOINT, folder=folder, extra={})
    return folder


@pytest.fixture(scope="session")
def int8(quant: Quant, checkpoint: Path) -> Path:
    """The checkpoint as w8a8-int8."""
    return _variant(quant, checkpoint, "int8", "w8a8-int8")


@pytest.fixture(scope="session")
def int4(quant: Quant, checkpoint: Path) -> Path:
    """The checkpoint as w4a16 with the default group size."""
    return _variant(quant, checkpoint, "int4", "w4a16")


def _variant(quant: Quant, checkpoint: Path, name: str, scheme: str) -> Path:
    out = checkpoint.with_name(name)
    done = quant("rtn", checkpoint, out, "--scheme", scheme)
    assert done.returncode == 0, done.stderr
    return out
