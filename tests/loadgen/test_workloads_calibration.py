"""Prompt lengths come from the server's own counts, adapters from its own list."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from planned import plan
from scripted_server import FIXED_TOKENS, scripted_server

from loadgen._calibrate import calibrate, probe_body
from loadgen._errors import LoadError
from loadgen._gateway import Prepared, prepare
from loadgen._mix import mix_adapters, parse_mix
from loadgen._prompts import Calibration
from loadgen._workloads import WORKLOADS
from loadgen._workloads._workload import CHAT, COMPLETIONS, EMBEDDINGS

_CARDS = {
    "demo": {"base_model": "demo", "max_model_len": 1024},
    "demo:bf16": {"base_model": "demo", "max_model_len": 1024},
    "demo:int8": {"base_model": "demo", "max_model_len": 1024},
    "sql": {"base_model": "demo", "adapter": "sql", "parent": "demo:bf16", "max_model_len": 1024},
    "sql:bf16": {"base_model": "demo", "adapter": "sql", "parent": "demo:bf16", "max_model_len": 1024},
    "law:bf16": {"base_model": "demo", "adapter": "law", "parent": "demo:bf16", "max_model_len": 1024},
}


class Counter:
    """Counts as a tokenizer with a template does, and remembers who was asked."""

    def __init__(self, tokens_a_word: dict[str, float]) -> None:
        self.asked: list[str] = []
        self._slopes = tokens_a_word

    def __call__(self, model: str, messages: Sequence[str]) -> int:
        self.asked.append(model)
        words = sum(len(message.split()) for message in messages)
        return round(11 + 5 * (len(messages) - 1) + self._slopes[model] * words)


def test_variants_of_one_base_are_calibrated_once_and_checked() -> None:
    models = ("demo:bf16", "demo:int8", "sql:bf16")
    counter = Counter(dict.fromkeys(models, 2.0))
    found = calibrate(models, _CARDS, counter, salt="s", several_messages=False)
    assert counter.asked == ["demo:bf16"] * 6 + ["demo:int8", "sql:bf16"]
    for calibration in found.values():
        assert (calibration.fixed_tokens, calibration.tokens_a_word) == pytest.approx((11, 2.0), abs=0.1)
        assert calibration.check_error == pytest.approx(0, abs=0.005)


def test_variant_with_another_tokenizer_gets_a_calibration_of_its_own() -> None:
    counter = Counter({"demo:bf16": 2.0, "demo:int8": 3.0})
    found = calibrate(("demo:bf16", "demo:int8"), _CARDS, counter, salt="s", several_messages=False)
    assert found["demo:bf16"].tokens_a_word == pytest.approx(2.0, abs=0.02)
    assert found["demo:int8"].tokens_a_word == pytest.approx(3.0, abs=0.02)


def test_messages_beyond_the_first_are_calibrated_where_they_are_sent() -> None:
    found = calibrate(("demo",), _CARDS, Counter({"demo": 2.0}), salt="s", several_messages=True)
    assert found["demo"].tokens_a_message == pytest.approx(5, abs=0.3)


@pytest.mark.parametrize("context", [16, 128, 1024, None])
def test_probes_fit_into_the_context(context: int | None) -> None:
    longest: list[int] = []

    def count(_model: str, messages: Sequence[str]) -> int:
        longest.append(len(" ".join(messages).split()))
        return longest[-1] * 5

    calibrate(("m",), {"m": {"max_model_len": context}}, count, salt="s", several_messages=False)
    assert max(longest) * 5 <= (context or 10_000)


@pytest.mark.parametrize(("endpoint", "member"), [(CHAT, "messages"), (COMPLETIONS, "prompt"), (EMBEDDINGS, "input")])
def test_probe_speaks_the_grammar_of_its_endpoint(endpoint: str, member: str) -> None:
    body = probe_body(endpoint, "m", ["a b", "c"])  # type: ignore[arg-type]
    assert body[member] == (
        [{"role": "user", "content": "a b"}, {"role": "assistant", "content": "c"}]
        if member == "messages"
        else "a b\nc"
    )
    assert ("max_tokens" in body) == (endpoint != EMBEDDINGS)


def test_calibration_reaches_the_workers_unchanged() -> None:
    with scripted_server("demo:bf16") as server:
        found = prepare(plan(host=server.url))
    assert Prepared.from_json(found.to_json()) == found
    assert found.calibrations["demo:bf16"].fixed_tokens == pytest.approx(FIXED_TOKENS)
    assert found.calibrations["demo:bf16"].check_error == 0


def test_bad_file_is_refused_before_anything_is_asked(tmp_path: object) -> None:
    with scripted_server("demo:bf16") as server, pytest.raises(LoadError, match="cannot be read"):
        prepare(plan("--workload", "jsonl", "--workload-file", f"{tmp_path}/none", host=server.url))
    assert server.probes == 0


def test_unknown_model_is_refused_with_those_that_are_known() -> None:
    with scripted_server("demo:bf16") as server, pytest.raises(LoadError, match="does not list the model 'demo:int3'"):
        prepare(plan("--models", "demo:int3", host=server.url))


def test_adapters_share_the_requests_of_their_base() -> None:
    base = parse_mix("demo:bf16", list(_CARDS))
    assert dict(zip(*_shares("uniform"), strict=True)) == pytest.approx(
        {"demo:bf16": 1 / 3, "sql:bf16": 1 / 3, "law:bf16": 1 / 3}
    )
    assert _shares("zipf")[1] == pytest.approx([rank**-1.5 / (1 + 2**-1.5 + 3**-1.5) for rank in (1, 2, 3)])
    assert _shares("zipf=1")[1] == pytest.approx([6 / 11, 3 / 11, 2 / 11])
    assert _shares("law=3,base=1") == (("law:bf16", "demo:bf16"), (0.75, 0.25))
    assert mix_adapters("", base, _CARDS) == base


def test_model_without_adapters_keeps_its_requests() -> None:
    mix = mix_adapters("sql=1", parse_mix("demo:bf16=1,demo:int8=2", list(_CARDS)), _CARDS)
    assert mix.models == ("sql:bf16", "demo:int8")
    assert mix.weights == (1.0, 2.0)


def test_adapters_of_a_plain_server_are_known_by_their_parent() -> None:
    cards = {"base/model": {}, "lora-1": {"parent": "base/model"}}
    mix = mix_adapters("uniform", parse_mix("base/model", list(cards)), cards)
    assert mix.models == ("base/model", "lora-1")


@pytest.mark.parametrize(
    ("models", "text", "says"),
    [
        ("demo:int8", "uniform", "lists no adapter on demo:int8"),
        ("sql:bf16", "uniform", "lists no adapter on an adapter"),
        ("demo:bf16", "tax=1", "names 'tax'; there are base, sql, law"),
        ("demo:bf16", "zipf=x", "is not zipf or zipf=NUMBER"),
        ("demo:bf16", "sql=0", "is not ID or ID=WEIGHT with a weight above 0"),
    ],
)
def test_adapter_mix_that_makes_no_sense_is_refused(models: str, text: str, says: str) -> None:
    with pytest.raises(LoadError, match=says):
        mix_adapters(text, parse_mix(models, list(_CARDS)), _CARDS)


def _shares(text: str) -> tuple[tuple[str, ...], tuple[float, ...]]:
    mix = mix_adapters(text, parse_mix("demo:bf16", list(_CARDS)), _CARDS)
    return mix.models, mix.weights


class _Server(ThreadingHTTPServer):
    """Lists a chat and an embedding model, counts three tokens a word and one more, and knows who asked where."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[tuple[str, str]] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def log_message(self, *arguments: Any) -> None:
        """Silent."""

    def do_GET(self) -> None:
        tasks = {"chatty": "generate", "vectors": "embed"}
        self._answer({"data": [{"id": id_, "task": task, "max_model_len": 512} for id_, task in tasks.items()]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.path, body["model"]))
        text = body.get("prompt", body.get("input"))
        self._answer({"usage": {"prompt_tokens": 1 + 3 * len(text.split())}})

    def _answer(self, data: Any) -> None:
        body = json.dumps(data).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def server() -> Iterator[_Server]:
    of = _Server()
    thread = threading.Thread(target=of.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield of
    of.shutdown()
    thread.join()
    of.server_close()


@pytest.mark.parametrize(
    ("arguments", "path", "model"),
    [
        (("--workload", "embeddings"), EMBEDDINGS, "vectors"),
        (("--workload-options", "endpoint=completions"), COMPLETIONS, "chatty"),
    ],
)
def test_workload_is_calibrated_where_it_is_sent_with_models_that_can_answer_it(
    server: _Server, arguments: tuple[str, ...], path: str, model: str
) -> None:
    of = plan(*arguments, host=server.url)
    found = prepare(of)
    assert set(server.asked) == {(path, model)}
    assert found.calibrations[model] == Calibration(fixed_tokens=1, tokens_a_word=3.0)
    ask = WORKLOADS[of.workload](of, found).ask(0)
    assert (ask.endpoint, ask.model) == (path, model)


def test_texts_that_are_given_need_no_calibration(server: _Server, tmp_path: Path) -> None:
    file = tmp_path / "asks.jsonl"
    file.write_text('{"prompt": "go on"}\n', encoding="utf-8")
    found = prepare(plan("--workload", "jsonl", "--workload-file", str(file), host=server.url))
    assert (server.asked, found.calibrations) == ([], {})
