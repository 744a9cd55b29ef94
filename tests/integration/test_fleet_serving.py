"""What clients get from three real engines: variants, adapters, errors."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.integration.fleet import THIRD, Fleet, chat

pytestmark = [pytest.mark.fleet, pytest.mark.timeout(600)]

VARIANTS = ["bf16", "int8", THIRD]
ADAPTERS = ["json", "code"]


def post(fleet: Fleet, path: str, body: Any) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return httpx.post(f"{fleet.gateway}{path}", content=content, timeout=60)


def answer(fleet: Fleet, model: str, **more: Any) -> dict[str, Any]:
    response = post(fleet, "/v1/chat/completions", chat(model, **more))
    assert response.status_code == 200, response.text
    return dict(response.json())


def text_of(fleet: Fleet, model: str) -> str:
    return str(answer(fleet, model)["choices"][0]["message"]["content"])


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_answers_and_says_who_it_is(fleet: Fleet, variant: str) -> None:
    response = post(fleet, "/v1/chat/completions", chat(f"demo:{variant}"))
    assert response.status_code == 200
    assert response.json()["model"] == f"demo:{variant}"
    assert response.headers["x-wattgate-engine"] == f"demo-{variant}"
    assert response.json()["usage"]["completion_tokens"] > 0


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_streams_and_ends_with_done(fleet: Fleet, variant: str) -> None:
    body = chat(f"demo:{variant}", stream=True, ignore_eos=True)
    frames: list[str] = []
    with httpx.stream("POST", f"{fleet.gateway}/v1/chat/completions", json=body, timeout=60) as response:
        frames.extend(line[6:] for line in response.iter_lines() if line.startswith("data: "))
    assert frames[-1] == "[DONE]"
    chunks = [json.loads(frame) for frame in frames[:-1]]
    assert {chunk["model"] for chunk in chunks} == {f"demo:{variant}"}
    assert all(chunk.get("usage") is None for chunk in chunks), "usage was not asked for"
    assert "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)


def test_bare_id_is_the_first_listed_variant(fleet: Fleet) -> None:
    assert answer(fleet, "demo")["model"] == "demo:bf16"


def test_temperature_zero_gives_the_same_text_twice(fleet: Fleet) -> None:
    assert text_of(fleet, "demo:bf16") == text_of(fleet, "demo:bf16")


@pytest.mark.parametrize("variant", ["bf16", THIRD])
def test_each_adapter_changes_the_text(fleet: Fleet, variant: str) -> None:
    texts = {name: text_of(fleet, f"{name}:{variant}") for name in ["demo", *ADAPTERS]}
    assert len(set(texts.values())) == 3, texts
    assert answer(fleet, f"json:{variant}")["model"] == f"json:{variant}"


def test_official_client_lists_models_and_streams_with_usage(fleet: Fleet) -> None:
    with openai.OpenAI(base_url=f"{fleet.gateway}/v1", api_key="unused", max_retries=0) as client:
        listed = {model.id: model.model_dump() for model in client.models.list()}
        assert {"demo", *(f"demo:{variant}" for variant in VARIANTS), "json", f"json:{THIRD}", "code:bf16"} <= set(
            listed
        )
        assert "json:int8" not in listed
        assert listed[f"demo:{THIRD}"]["precision"] == THIRD
        assert listed[f"demo:{THIRD}"]["parameters"] == listed["demo:bf16"]["parameters"]
        size = {variant: listed[f"demo:{variant}"]["size_bytes"] for variant in VARIANTS}
        assert size["int8"] < size["bf16"]
        # float16 is the same file, read as another format.
        assert size["int4"] < size["int8"] if THIRD == "int4" else size["fp16"] == size["bf16"]
        stream = client.chat.completions.create(
            model="demo:int8",
            messages=[{"role": "user", "content": "Hello"}],
            max_tokens=8,
            stream=True,
            stream_options={"include_usage": True},
            extra_body={"ignore_eos": True},
        )
        usages = [chunk.usage for chunk in stream if chunk.usage]
        assert [usage.completion_tokens for usage in usages] == [8]
        completion = client.completions.create(model="demo", prompt="import ", max_tokens=4)
        assert completion.model == "demo:bf16"


def test_unknown_fields_reach_the_engine(fleet: Fleet) -> None:
    forced = answer(fleet, "demo:bf16", max_tokens=5, ignore_eos=True)
    assert forced["usage"]["completion_tokens"] == 5


def test_tokenize_and_detokenize_are_inverse(fleet: Fleet) -> None:
    tokens = post(fleet, "/tokenize", {"model": "demo", "prompt": "import json"}).json()["tokens"]
    assert tokens
    said = post(fleet, "/detokenize", {"model": "demo", "tokens": tokens}).json()["prompt"]
    assert said.removeprefix("<|begin|>").strip().endswith("import json")


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("/v1/chat/completions", chat("demo:int3"), 404, "demo:int"),
        ("/v1/chat/completions", b'{"model": "demo", ', 400, "JSON"),
        ("/v1/chat/completions", b'["demo"]', 400, "object"),
        ("/v1/chat/completions", {"messages": []}, 400, "model"),
        ("/v1/chat/completions", chat("demo") | {"model": 7}, 400, "model"),
        ("/v1/chat/completions", chat("demo") | {"stream": "yes"}, 400, "stream"),
        ("/v1/embeddings", {"model": "demo", "input": "x"}, 400, "generate"),
        ("/v1/nothing", {}, 404, "/v1/nothing"),
    ],
)
def test_bad_request_gets_an_openai_error(fleet: Fleet, path: str, body: Any, status: int, words: str) -> None:
    response = post(fleet, path, body)
    assert response.status_code == status, response.text
    assert words in response.json()["error"]["message"]


@pytest.mark.parametrize("variant", ["int8", THIRD])
def test_lower_precision_keeps_the_perplexity_within_two_percent(fleet: Fleet, root: Path, variant: str) -> None:
    ratio = perplexity(fleet, root, variant) / perplexity(fleet, root, "bf16")
    assert abs(ratio - 1) <= 0.02, f"{variant}: {ratio:.4f} of bf16's"


def perplexity(fleet: Fleet, root: Path, variant: str) -> float:
    """exp of the mean negative log-likelihood of held-out text, by the running engine's own log-probabilities."""
    text = (root / "quant" / "demo" / "heldout.txt").read_text(encoding="utf-8")
    total, count = 0.0, 0
    for start in range(0, 16_000, 1600):
        body = {
            "model": f"demo:{variant}",
            "prompt": text[start : start + 1600],
            "max_tokens": 1,
            "temperature": 0,
            "prompt_logprobs": 0,
        }
        response = post(fleet, "/v1/completions", body)
        assert response.status_code == 200, response.text
        for position in response.json()["choices"][0]["prompt_logprobs"]:
            if position:  # the first token has none
                (entry,) = position.values()
                total, count = total - entry["logprob"], count + 1
    return math.exp(total / count)
