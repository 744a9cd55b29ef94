"""Every own scheme in a real engine: it loads as it is, and computes with the weights that the reader here sees."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pytest

from tests.quant.conftest import Quant, Script

pytestmark = [pytest.mark.fleet, pytest.mark.engine_env, pytest.mark.timeout(900)]

RECIPE: Final = """\
source: {source}
output: {output}
variants:
  int8: {{method: rtn, scheme: w8a8-int8}}
  int4: {{method: rtn, scheme: w4a16}}
  int4-zero: {{method: rtn, scheme: w4a16, group_size: 32, symmetric: false}}
  fp8: {{method: rtn, scheme: fp8-dynamic}}
  fp8-block: {{method: rtn, scheme: fp8-block}}
  fp16: {{method: cast, dtype: fp16}}
"""
ENVIRON: Final[Mapping[str, str]] = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_DO_NOT_TRACK": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
}
WINDOW: Final = 256
KERNEL_MISSING: Final[Mapping[str, str]] = {
    "int4": "has no attribute 'cpu_gemm_wna16'",
    "int4-zero": "has no attribute 'cpu_gemm_wna16'",
    "fp8-block": "Failed to find a kernel that can implement the ScaledMM linear layer",
}
"""What vLLM says of a scheme that it understands on a CPU that it has no kernel for: int4 needs AVX-512, and is loaded
before that is noticed; FP8 in blocks needs AMX."""

SCORE: Final = """
import json, sys
from vllm import LLM, SamplingParams
folder, ids = sys.argv[1], json.loads(sys.argv[2])
llm = LLM(model=folder, enforce_eager=True, max_model_len=len(ids) + 16)
wanted = SamplingParams(max_tokens=8, temperature=0, prompt_logprobs=0)
answer = llm.generate([{"prompt_token_ids": ids}], wanted)[0]
logprobs = [ranks[token].logprob for ranks, token in zip(answer.prompt_logprobs[1:], ids[1:])]
print("ANSWER" + json.dumps({"nll": -sum(logprobs) / len(logprobs), "tokens": list(answer.outputs[0].token_ids)}))
"""
READ: Final = """
import torch
from quant.evaluate import load_dequantized, token_windows
ids = token_windows(folder, text.read_text(), length)[0]
with torch.inference_mode():
    logits = load_dequantized(folder)(input_ids=torch.tensor([ids]), use_cache=False).logits[0].float()
loss = torch.nn.functional.cross_entropy(logits[:-1], torch.tensor(ids[1:]))
result = [ids, loss.item()]
"""


@pytest.fixture(scope="module")
def made(quant: Quant, root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    (folder / "recipe.yaml").write_text(RECIPE.format(source=root / "models" / "demo", output=folder))
    done = quant("run", folder / "recipe.yaml")
    assert done.returncode == 0, done.stderr
    return folder


def has_kernel(name: str) -> bool:
    """Whether vLLM has a kernel of this scheme for this machine's processor."""
    if name not in KERNEL_MISSING:
        return True
    flags = Path("/proc/cpuinfo").read_text(encoding="utf-8").partition("flags")[2].partition("\n")[0].split()
    return ("amx_tile" if name == "fp8-block" else "avx512f") in flags


@pytest.mark.parametrize("name", ["int8", "int4", "int4-zero", "fp8", "fp8-block", "fp16"])
def test_engine_loads_the_variant_and_scores_text_as_the_reader_does(
    script: Script, engine_python: Path, root: Path, made: Path, name: str
) -> None:
    ids, expected = script(READ, folder=made / name, text=root / "quant" / "demo" / "heldout.txt", length=WINDOW)
    command = [engine_python, "-c", SCORE, made / name, json.dumps(ids)]
    environ = {**os.environ, **ENVIRON}  # noqa: TID251 - passed on, not read
    done = subprocess.run(command, cwd=root, env=environ, capture_output=True, text=True, timeout=850, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("ANSWER")]
    if not lines and not has_kernel(name):
        assert KERNEL_MISSING[name] in done.stderr
        return
    assert lines, done.stderr[-3000:]
    answer = json.loads(lines[-1].removeprefix("ANSWER"))
    assert len(answer["tokens"]) == 8
    # bf16 products against float32 ones: about 0.01 nats a token apart on this model.
    assert answer["nll"] == pytest.approx(expected, abs=0.03)
