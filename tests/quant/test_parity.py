"""The project's rounding to nearest against llm-compressor's: same scales, same codes, same text from vLLM."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from loadgen._demo._cpu import serves_int4
from tests.quant.compressor_worker import quant_script  # noqa: F401 - a fixture
from tests.quant.conftest import Script

pytestmark = [pytest.mark.engine_env, pytest.mark.quant_env, pytest.mark.timeout(900)]

# Own scheme and options → options of llm-compressor's rounding.
PAIRS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "w4a16-g128": ("w4a16", {}, {"scheme": "w4a16"}),
    "w4a16-g32": ("w4a16", {"group_size": 32}, {"scheme": "w4a16", "group_size": 32}),
    "w4a16-asymmetric": ("w4a16", {"symmetric": False}, {"scheme": "w4a16", "symmetric": False}),
    "w8a8-int8": ("w8a8-int8", {}, {"scheme": "w8a8-int8"}),
    "fp8-dynamic": ("fp8-dynamic", {}, {"scheme": "fp8-dynamic"}),
    "fp8-block": ("fp8-block", {}, {"scheme": "fp8-block"}),
}
SERVED = ["w8a8-int8", *(["w4a16-g128"] if serves_int4() else [])]
PROMPTS = ["import json\n\n", "def main():\n", "The following", "class Path:\n    ", "What does json.dumps do?"]

OWN = """
from quant.methods import Options, method_of
from quant.rtn import round_to_nearest
round_to_nearest(base, out, method_of(scheme, Options(**options)))
result = None
"""

REFERENCE = """
from quant.compressor.compress import compress
from quant.compressor.table import method_options
for name, options in jobs.items():
    compress("rtn-reference", base, folder / name, method_options("rtn-reference", options))
result = None
"""

COMPARE = """
import torch
from safetensors.torch import load_file
mine, theirs = (load_file(path / "model.safetensors") for path in (own, reference))

def nibbles(words):
    pairs = words.contiguous().view(torch.uint8)
    return torch.stack((pairs & 15, pairs >> 4), dim=-1).flatten()

def codes(name, tensor):
    if name.endswith("weight_packed"):
        return nibbles(tensor)
    return tensor.contiguous().view(torch.int8).flatten() if name.endswith(".weight") else tensor.flatten()

names = [name for name in theirs if name.rpartition(".")[2] in {"weight", "weight_packed"}]
scales = [name for name in theirs if name.rpartition(".")[2] in {"weight_scale", "weight_zero_point"}]
equal = sum((codes(n, mine[n]) == codes(n, theirs[n])).sum().item() for n in names)
result = {
    "tensors": sorted(theirs) == sorted(mine),
    "shapes": all(mine[n].shape == theirs[n].shape for n in theirs if n in mine),
    "scales": sum((mine[n].float() != theirs[n].float()).sum().item() for n in scales),
    "scale_count": sum(theirs[n].numel() for n in scales),
    "codes": equal / sum(codes(n, theirs[n]).numel() for n in names),
}
"""

GREEDY = """
import json, sys
from vllm import LLM, SamplingParams
engine = LLM(model=sys.argv[1], enforce_eager=True, max_model_len=256, max_num_seqs=8)
answers = engine.generate(json.loads(sys.argv[2]), SamplingParams(temperature=0, max_tokens=32, ignore_eos=True))
print("\\n" + json.dumps([list(answer.outputs[0].token_ids) for answer in answers]))
"""


@pytest.fixture(scope="module")
def references(
    quant_script: Script,  # noqa: F811
    root: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The demo model, rounded by llm-compressor in every way of `PAIRS`."""
    folder = tmp_path_factory.mktemp("reference")
    jobs = {name: options for name, (_, _, options) in PAIRS.items()}
    quant_script(REFERENCE, base=root / "models" / "demo", folder=folder, jobs=jobs)
    return folder


@pytest.fixture(scope="module")
def own(script: Script, root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same by the project's methods."""
    folder = tmp_path_factory.mktemp("own")
    for name, (scheme, options, _) in PAIRS.items():
        script(OWN, base=root / "models" / "demo", out=folder / name, scheme=scheme, options=options)
    return folder


@pytest.mark.parametrize("name", PAIRS)
def test_own_rounding_has_the_scales_and_codes_of_llm_compressor(
    script: Script, own: Path, references: Path, name: str
) -> None:
    found = script(COMPARE, own=own / name, reference=references / name)
    assert found["tensors"]
    assert found["shapes"]
    assert found["scale_count"] > 100
    assert found["scales"] == 0
    assert found["codes"] >= 0.9999


@pytest.mark.parametrize("name", SERVED)
def test_vllm_writes_the_same_text_from_both(own: Path, references: Path, engine_python: Path, name: str) -> None:
    mine, theirs = (greedy(engine_python, folder / name) for folder in (own, references))
    assert len(mine) == len(PROMPTS)
    assert mine == theirs


def greedy(python: Path, checkpoint: Path) -> list[list[int]]:
    """Token ids that vLLM chooses at temperature 0, in a process of its own."""
    environ = {
        **os.environ,  # noqa: TID251  # passed on, not read
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_DO_NOT_TRACK": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    }
    command = [str(python), "-c", GREEDY, str(checkpoint), json.dumps(PROMPTS)]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    answer: list[list[int]] = json.loads(done.stdout.splitlines()[-1])
    return answer
