"""Every kind of adapter that PEFT can make ends as served, converted, merged, or refused with the reason.

One adapter of every kind is made on the demo model, goes the way that `inspect` names, and what comes out is served by
a real vLLM engine, whose probabilities must be those that PEFT computes. One engine serves them all: adapters are
loaded while it runs, merged models replace its weights.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from server.errors import IncompatibleError
from server.models import DeviceFacts, check_adapter, read_adapter, read_checkpoint
from server.models.adapter_kinds import ADAPTER_KINDS
from tests.integration.fleet import free_port, wait_until
from tests.quant.quant_environment import QuantEnvironment, quant_environment  # noqa: F401 - a fixture

pytestmark = [pytest.mark.engine_env, pytest.mark.fleet, pytest.mark.timeout(900)]

PROMPT: Final = list(range(300, 348))  # make_adapters.py's
RANK: Final = 256
NOISE: Final = 0.06
"""Mean difference of log-probabilities, nats: a bf16 engine against float32 has 0.02 to 0.03."""
TEXT_CHARACTERS: Final = 900  # a window of 256 tokens: enough to print a loss


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Where an adapter's way ended."""

    way: str
    folder: Path
    code: int
    said: str


@pytest.fixture(scope="module")
def made(quant_environment: QuantEnvironment, root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811
    """An adapter of every kind."""
    folder = tmp_path_factory.mktemp("made")
    command = [quant_environment.python, "-m", "tests.quant.make_adapters", folder]
    environ = {**os.environ, "OMP_NUM_THREADS": "1"}  # noqa: TID251  # passed on; small matrices gain nothing from more
    done = subprocess.run(command, cwd=root, env=environ, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.fixture(scope="module")
def outcomes(
    made: Path,
    quant_environment: QuantEnvironment,  # noqa: F811
    root: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Mapping[str, Outcome]:
    """Every adapter has gone the way that `inspect` names."""
    out = tmp_path_factory.mktemp("ways")
    text = out / "text.txt"
    text.write_text((root / "quant/demo/heldout.txt").read_text(encoding="utf-8")[:TEXT_CHARACTERS], encoding="utf-8")
    base = root / "models" / "demo"
    found: dict[str, Outcome] = {}
    for adapter in sorted(path for path in made.iterdir() if path.is_dir()):
        said = quant_environment.run("adapter", "inspect", adapter, "--base", base, "--json")
        assert said.returncode == 0, said.stderr
        way = json.loads(said.stdout)["way"]
        folder = adapter if way == "serve" else out / adapter.name
        if way == "serve":
            found[adapter.name] = Outcome(way=way, folder=folder, code=0, said=said.stdout)
        else:
            verb = "merge" if way == "refuse" else way
            done = quant_environment.run("adapter", verb, adapter, folder, "--base", base, "--text", text)
            found[adapter.name] = Outcome(way=way, folder=folder, code=done.returncode, said=done.stdout + done.stderr)
    return found


@pytest.fixture(scope="module")
def engine(engine_python: Path, root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """vLLM with the demo model, ready."""
    port = free_port()
    log = tmp_path_factory.mktemp("engine") / "engine.log"
    options = ["--served-model-name", "base", "--enforce-eager", "--max-model-len", "256"]
    options += ["--enable-lora", "--max-lora-rank", str(RANK), "--max-loras", "1"]
    environ = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_DO_NOT_TRACK": "1"}
    environ |= {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1", "VLLM_SERVER_DEV_MODE": "1"}
    module = "vllm.entrypoints.openai.api_server"
    command = [engine_python, "-m", module, "--model", "models/demo", "--host", "127.0.0.1", "--port", str(port)]
    with log.open("wb") as file:
        process = subprocess.Popen(
            [*command, *options],
            cwd=root,
            env={**os.environ, **environ},  # noqa: TID251  # passed on
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120) as client:
            wait_until(lambda: _healthy(client, process), bound_s=420, what="the engine is ready", every_s=0.5)
            yield client
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
        print(log.read_text(encoding="utf-8", errors="replace")[-4000:])


def _healthy(client: httpx.Client, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None, "the engine ended"
    try:
        return client.get("/health").status_code == 200
    except httpx.HTTPError:
        return False


def log_probabilities(engine: httpx.Client, model: str) -> list[float]:
    body = {"model": model, "prompt": PROMPT, "max_tokens": 4, "temperature": 0, "prompt_logprobs": 0}
    answer = engine.post("/v1/completions", json=body)
    assert answer.status_code == 200, answer.text
    tokens: list[dict[str, Any]] = answer.json()["choices"][0]["prompt_logprobs"][1:]
    return [next(iter(token.values()))["logprob"] for token in tokens]


def distance(found: list[float], wanted: list[float]) -> float:
    return sum(abs(a - b) for a, b in zip(found, wanted, strict=True)) / len(wanted)


def replace_weights(engine: httpx.Client, checkpoint: Path) -> None:
    body = {"method": "reload_weights", "kwargs": {"weights_path": str(checkpoint)}}
    answer = engine.post("/collective_rpc", json=body)
    assert answer.status_code == 200, answer.text
    engine.post("/reset_prefix_cache").raise_for_status()


def test_table_knows_exactly_the_kinds_that_peft_knows(made: Path) -> None:
    kinds = {read_adapter(path).kind for path in made.iterdir() if path.is_dir()}
    assert kinds == set(ADAPTER_KINDS)


def test_every_adapter_ends_as_its_way_says(outcomes: Mapping[str, Outcome]) -> None:
    wrong = {name: end for name, end in outcomes.items() if (end.code == 0) != (end.way != "refuse")}
    assert wrong == {}


def test_refused_adapter_is_refused_with_the_reason_and_leaves_nothing(outcomes: Mapping[str, Outcome]) -> None:
    for name, end in outcomes.items():
        if end.way == "refuse":
            kind = ADAPTER_KINDS[name.partition("-")[0]]
            assert kind.way != "refuse" or kind.about in end.said
            assert "Instead: " in end.said
            assert not end.folder.exists()


def test_server_takes_exactly_what_inspect_calls_served(
    outcomes: Mapping[str, Outcome], made: Path, root: Path
) -> None:
    """Nothing else ever reaches an engine."""
    base, cpu = read_checkpoint(root / "models" / "demo"), DeviceFacts(kind="cpu")
    for name, end in outcomes.items():
        if end.way in {"serve", "convert"}:
            check_adapter(read_adapter(end.folder), base, max_rank=RANK, device=cpu)
        if end.way != "serve":
            with pytest.raises(IncompatibleError):
                check_adapter(read_adapter(made / name), base, max_rank=RANK, device=cpu)


def test_engine_computes_with_every_adapter_what_peft_does(
    engine: httpx.Client, outcomes: Mapping[str, Outcome], made: Path, root: Path
) -> None:
    expected = json.loads((made / "expected.json").read_text(encoding="utf-8"))
    found = {"base": distance(log_probabilities(engine, "base"), expected["base"])}
    for name, end in outcomes.items():
        if end.way in {"serve", "convert"}:
            body = {"lora_name": name, "lora_path": str(end.folder)}
            answer = engine.post("/v1/load_lora_adapter", json=body)
            assert answer.status_code == 200, f"{name}: {answer.text}"
            found[name] = distance(log_probabilities(engine, name), expected[name])
            engine.post("/v1/unload_lora_adapter", json={"lora_name": name}).raise_for_status()
    for name, end in outcomes.items():
        if end.way == "merge":
            replace_weights(engine, end.folder)
            found[name] = distance(log_probabilities(engine, "base"), expected[name])
    replace_weights(engine, root / "models" / "demo")
    found["base again"] = distance(log_probabilities(engine, "base"), expected["base"])
    for name, value in found.items():
        effect = distance(expected.get(name, expected["base"]), expected["base"])
        print(f"{name:<20} {outcomes[name].way if name in outcomes else '':<8} {value:.4f} of {effect:.4f}")
    assert {name: value for name, value in found.items() if value > NOISE} == {}
    assert engine.get("/health").status_code == 200
