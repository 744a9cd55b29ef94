"""Perplexity, offline and on a running engine."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from quant.errors import ServedError
from quant.served import Endpoint, perplexity_served
from tests.quant.conftest import Quant, Script

MAKE_LLAMA = """
import torch
from transformers import LlamaConfig, LlamaForCausalLM
torch.manual_seed(0)
shape = dict(hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2)
config = LlamaConfig(vocab_size=96, tie_word_embeddings=True, **shape)
model = LlamaForCausalLM(config).to(torch.bfloat16)
for weight in model.parameters():
    weight.data.mul_(4 if weight.ndim == 2 else 1)
model.save_pretrained(folder)
result = None
"""
COMPARE_OUTPUTS = """
import torch
from quant.evaluate import load_dequantized
ids = torch.arange(48).view(1, 48)
with torch.no_grad():
    a, b = (load_dequantized(folder)(input_ids=ids).logits for folder in (before, after))
result = ((a - b).norm() / a.norm()).item()
"""


class CannedEngine(ThreadingHTTPServer):
    """Answers every completion with the same log-probability for every token but the first."""

    def __init__(self, logprob: float | None) -> None:
        super().__init__(("127.0.0.1", 0), CannedAnswer)
        self.logprob = logprob
        self.keys: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class CannedAnswer(BaseHTTPRequestHandler):
    server: CannedEngine

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.keys.append(self.headers["Authorization"])
        ranks: list[Any] = [None, *({str(token): {"logprob": self.server.logprob}} for token in body["prompt"][1:])]
        choice = {"text": "", "prompt_logprobs": ranks} if self.server.logprob is not None else {"text": ""}
        answer = json.dumps({"choices": [choice]}).encode()
        self.send_response(404 if body["model"] == "unknown" else 200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *args: object) -> None:
        """Say nothing."""


def serving(logprob: float | None) -> Iterator[CannedEngine]:
    with CannedEngine(logprob) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def engine() -> Iterator[CannedEngine]:
    """An engine for which every token has probability 1/4."""
    yield from serving(math.log(0.25))


@pytest.fixture
def engine_without_logprobs() -> Iterator[CannedEngine]:
    """An engine that ignores `prompt_logprobs`."""
    yield from serving(None)


def test_served_perplexity_is_the_inverse_of_the_tokens_mean_probability(engine: CannedEngine) -> None:
    endpoint = Endpoint(url=engine.url, model="demo", api_key="secret")
    assert perplexity_served(endpoint, [[5, 6, 7], [8, 9, 10, 11]]) == pytest.approx(4.0)
    assert engine.keys == ["Bearer secret"] * 2


def test_engine_without_prompt_logprobs_is_refused(engine_without_logprobs: CannedEngine) -> None:
    with pytest.raises(ServedError, match="no prompt_logprobs"):
        perplexity_served(Endpoint(url=engine_without_logprobs.url, model="demo"), [[1, 2]])


def test_engine_that_answers_an_error_is_quoted(engine: CannedEngine) -> None:
    with pytest.raises(ServedError, match="answered 404"):
        perplexity_served(Endpoint(url=engine.url, model="unknown"), [[1, 2]])


def test_engine_that_is_not_there_is_named() -> None:
    with pytest.raises(ServedError, match=r"127\.0\.0\.1:9 cannot be reached"):
        perplexity_served(Endpoint(url="http://127.0.0.1:9", model="demo"), [[1, 2]])


@pytest.mark.engine_env
def test_model_that_knows_nothing_has_the_vocabulary_as_perplexity(script: Script) -> None:
    source = """
import torch
from types import SimpleNamespace
from quant.evaluate import perplexity
result = perplexity(lambda input_ids, use_cache: SimpleNamespace(logits=torch.zeros(1, 8, 50)), [list(range(8))] * 3)
"""
    assert script(source) == pytest.approx(50)


@pytest.mark.engine_env
def test_dequantizing_reader_computes_nearly_what_the_original_does(
    script: Script, quant: Quant, tmp_path: Path
) -> None:
    original = tmp_path / "llama"
    script(MAKE_LLAMA, folder=original)
    distance = {}
    for name, scheme in {"int8": ["w8a8-int8"], "int4": ["w4a16", "--group-size", "32"]}.items():
        done = quant("rtn", original, tmp_path / name, "--scheme", *scheme)
        assert done.returncode == 0, done.stderr
        distance[name] = script(COMPARE_OUTPUTS, before=original, after=tmp_path / name)
    assert 0 < distance["int8"] < 0.05
    assert distance["int8"] < distance["int4"] < 0.5


@pytest.mark.engine_env
def test_perplexity_of_a_checkpoint_without_tokenizer_is_refused(script: Script, quant: Quant, tmp_path: Path) -> None:
    script(MAKE_LLAMA, folder=tmp_path / "llama")
    done = quant("perplexity", tmp_path / "llama")
    assert done.returncode == 1
    assert "no tokenizer" in done.stderr
