"""Every reported metric, held against the log of the engine that caused it.

Two steps. What the client saw, arrival by arrival, follows what the engine wrote: nothing comes before it was written,
nothing is missing, and the typical delay is small. And every figure of the summary is what its definition makes of
those arrivals and of the engine's own counts, computed here anew. How small the delay is, is no matter of a test on a
machine that does much else: tests/benchmarks/load_accuracy.py measures it.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import pytest

from tests.fakes.timed_engine import timed_engine

BOUND_S = 100.0
OUTPUT_TOKENS = 12
MODELS = ("plain", "several", "counted", "reasoning", "silent", "stalling", "cut")
WHOLE = tuple(model for model in MODELS if model != "cut")
COUNTED = tuple(model for model in WHOLE if model != "silent")
CLOCKS_S = 0.001
"""The kernel stamps by another clock; putting its times onto ours costs less than this."""
TYPICAL_S = 0.1
"""Far more than an arrival takes, far less than the 150 ms before a first token."""


@dataclass(frozen=True)
class Truth:
    """What the engine's log says of one request; times are CLOCK_MONOTONIC."""

    model: str
    received_s: float
    tokens: list[tuple[float, int]]
    """When each token chunk was handed to the kernel, and how many tokens it held."""
    ended_s: float
    prompt_tokens: int


@dataclass(frozen=True)
class Run:
    summary: Mapping[str, Any]
    records: list[Mapping[str, Any]]
    truth: Mapping[str, Truth]
    """By request id."""

    def of(self, model: str) -> Mapping[str, Any]:
        return next(entry for entry in self.summary["models"] if entry["model"] == model)

    def truths(self, model: str) -> list[Truth]:
        return [truth for truth in self.truth.values() if truth.model == model]


def truth_of(entry: Mapping[str, Any]) -> Truth:
    pieces = entry["pieces"]
    return Truth(
        model=entry["model"],
        received_s=entry["received_s"],
        tokens=[(piece["before_s"], piece["tokens"]) for piece in pieces if piece["kind"] in {"token", "body"}],
        ended_s=pieces[-1]["before_s"],
        prompt_tokens=entry["prompt_tokens"],
    )


def run_against_timed_engine(root: Path, folder: Path, *options: str) -> Run:
    with timed_engine() as engine:
        said = subprocess.run(
            [
                *(sys.executable, "-m", "locust", "-f", str(root / "loadgen"), "--headless"),
                *("--host", engine.url, "--output", str(folder), "--output-tokens", str(OUTPUT_TOKENS), *options),
            ],
            cwd=root,
            capture_output=True,
            text=True,
            timeout=BOUND_S,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        assert "Traceback" not in said.stderr, said.stderr
        log = engine.log()
    lines = (folder / "requests.jsonl").read_text(encoding="utf-8").splitlines()
    return Run(
        summary=json.loads((folder / "summary.json").read_text(encoding="utf-8")),
        records=[json.loads(line) for line in lines],
        truth={entry["request_id"]: truth_of(entry) for entry in log},
    )


@pytest.fixture(scope="module")
def run(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One closed loop over every way to answer."""
    return run_against_timed_engine(
        root,
        tmp_path_factory.mktemp("gate"),
        *("--models", ",".join(MODELS), "--requests", "120", "--concurrency", "12", "-t", "60s"),
        *("--slo", "ttft=200ms,e2e=500ms"),
    )


def seen(run: Run, model: str) -> list[Truth]:
    """Every whole answer with the client's times and the engine's counts of tokens."""
    return [
        replace(
            run.truth[record["request_id"]],
            received_s=record["sent_s"],
            tokens=[
                (at, tokens)
                for at, (_, tokens) in zip(record["token_s"], run.truth[record["request_id"]].tokens, strict=True)
            ],
            ended_s=record["ended_s"],
        )
        for record in run.records
        if record["model"] == model
    ]


def is_of(reported: Mapping[str, Any], values: Sequence[float]) -> None:
    """The distribution says of exactly these values what it says of any."""
    ascending = sorted(values)
    assert reported["samples"] == len(values)
    assert reported["mean"] == pytest.approx(math.fsum(values) / len(values))
    assert reported["max"] == pytest.approx(ascending[-1])
    for name, percent, floor in (("p50", 50, 11), ("p90", 90, 64), ("p95", 95, 130)):
        rank = -(-percent * len(values) // 100)
        assert reported[name] == (pytest.approx(ascending[rank - 1]) if len(values) >= floor else None)


def test_every_request_is_in_the_log_and_in_the_records_once(run: Run) -> None:
    assert len(run.records) == len(run.truth) == 120
    assert {record["request_id"] for record in run.records} == set(run.truth)
    for model in MODELS:
        assert run.of(model)["requests"] == len(run.truths(model)) > 0


def test_arrivals_follow_the_writes_of_tokens_one_by_one(run: Run) -> None:
    """A frame that only opens the answer is written 150 ms before: an arrival counted for it would be too early."""
    origin, late = run.summary["origin_monotonic_s"], []
    for record in run.records:
        truth = run.truth[record["request_id"]]
        assert record["sent_s"] + origin <= truth.received_s
        assert record["ended_s"] + origin >= truth.ended_s - CLOCKS_S or record["model"] == "cut"
        # What is in flight when a connection is reset may be lost.
        for at, (written_s, _) in zip(record["token_s"], truth.tokens, strict=record["model"] != "cut"):
            late.append(at + origin - written_s)
    assert min(late) >= -CLOCKS_S
    assert median(late) < TYPICAL_S


@pytest.mark.parametrize("model", WHOLE)
def test_first_token_counts_from_sending_and_the_end_is_that_of_the_stream(run: Run, model: str) -> None:
    of, answers = run.of(model), seen(run, model)
    first = [answer.tokens[0][0] - answer.received_s for answer in answers]
    ended = [answer.ended_s - answer.received_s for answer in answers]
    # In closed loop a request is due when it is sent.
    for name in ("time_to_first_token_s", "time_to_first_token_from_sent_s"):
        is_of(of[name], first)
    for name in ("end_to_end_s", "end_to_end_from_sent_s"):
        is_of(of[name], ended)


def gaps_between_chunks(truth: Truth) -> list[float]:
    return [later - earlier for (earlier, _), (later, _) in pairwise(truth.tokens)]


def gaps_by_the_chunks_own_tokens(truth: Truth) -> list[float]:
    return [(later - earlier) / tokens for (earlier, _), (later, tokens) in pairwise(truth.tokens)]


def gaps_spread(truth: Truth) -> list[float]:
    chunks = len(truth.tokens)
    return [gap * (chunks - 1) / (OUTPUT_TOKENS - 1) for gap in gaps_between_chunks(truth)]


@pytest.mark.parametrize("model", WHOLE)
def test_gaps_between_chunks_are_those_of_the_arrivals(run: Run, model: str) -> None:
    gaps = [gap for answer in seen(run, model) for gap in gaps_between_chunks(answer)]
    is_of(run.of(model)["inter_chunk_latency_s"], gaps)


@pytest.mark.parametrize(
    ("model", "basis", "gaps"),
    [
        ("plain", "one_token_a_chunk", gaps_between_chunks),
        ("reasoning", "one_token_a_chunk", gaps_between_chunks),
        ("stalling", "one_token_a_chunk", gaps_between_chunks),
        ("counted", "usage_a_chunk", gaps_by_the_chunks_own_tokens),
        ("several", "spread", gaps_spread),
    ],
)
def test_gaps_between_tokens_follow_their_definition_and_name_it(
    run: Run, model: str, basis: str, gaps: Callable[[Truth], list[float]]
) -> None:
    of, answers = run.of(model), seen(run, model)
    is_of(of["inter_token_latency_s"], [gap for answer in answers for gap in gaps(answer)])
    assert of["inter_token_latency_basis"] == {basis: len(answers)}
    assert of["inter_token_latency_exact"] == (basis == "one_token_a_chunk")


@pytest.mark.parametrize("model", COUNTED)
def test_time_per_output_token_is_the_span_by_the_tokens_after_the_first(run: Run, model: str) -> None:
    spans = [(of.tokens[-1][0] - of.tokens[0][0]) / (OUTPUT_TOKENS - 1) for of in seen(run, model)]
    is_of(run.of(model)["time_per_output_token_s"], spans)


@pytest.mark.parametrize("model", COUNTED)
def test_tokens_are_those_of_the_usage_and_not_the_chunks(run: Run, model: str) -> None:
    of, truths = run.of(model), run.truths(model)
    assert of["output_tokens"] == sum(tokens for truth in truths for _, tokens in truth.tokens)
    assert of["output_tokens"] == OUTPUT_TOKENS * len(truths)
    assert of["prompt_tokens"] == sum(truth.prompt_tokens for truth in truths)
    assert of["reasoning_tokens"] == (4 * len(truths) if model == "reasoning" else None)


@pytest.mark.parametrize("model", COUNTED)
def test_tokens_and_requests_a_second_are_those_of_the_window(run: Run, model: str) -> None:
    window, of, answers = run.summary["window"], run.of(model), seen(run, model)

    def inside(at: float) -> bool:
        return window["start_s"] <= at < window["end_s"]

    # Of "several" the client knows the total alone; its chunks are equal, so that its shares are right.
    tokens = sum(number for answer in answers for at, number in answer.tokens if inside(at))
    assert of["output_tokens_per_s"] * window["length_s"] == pytest.approx(tokens)
    assert of["requests_per_s"] * window["length_s"] == pytest.approx(sum(inside(one.ended_s) for one in answers))


def test_goodput_is_what_kept_the_bounds_with_failures_against_it(run: Run) -> None:
    window = run.summary["window"]
    for model in COUNTED:
        answers = seen(run, model)
        good = [
            one for one in answers if one.tokens[0][0] - one.received_s <= 0.2 and one.ended_s - one.received_s <= 0.5
        ]
        ended = [one for one in good if window["start_s"] <= one.ended_s < window["end_s"]]
        assert run.of(model)["goodput"] == {
            "requests_per_s": pytest.approx(len(ended) / window["length_s"]),
            "output_tokens_per_s": pytest.approx(len(ended) * OUTPUT_TOKENS / window["length_s"]),
            "attainment": pytest.approx(len(good) / len(answers)),
        }
    assert run.of("cut")["goodput"]["attainment"] == 0.0


def test_stream_without_usage_has_times_but_no_tokens(run: Run) -> None:
    silent = run.of("silent")
    assert silent["without_usage"] == silent["ok"] == len(run.truths("silent"))
    assert silent["output_tokens_per_s"] is None
    assert silent["inter_token_latency_s"]["samples"] == silent["time_per_output_token_s"]["samples"] == 0
    assert silent["validity"]["inter_token_latency_s"]["verdict"] == "n/a"
    assert silent["time_to_first_token_s"]["samples"] == silent["ok"]


def test_stall_is_in_the_longest_gap_of_its_request(run: Run) -> None:
    assert all(max(gaps_between_chunks(truth)) >= 0.4 for truth in run.truths("stalling"))
    longest = [max(gaps_between_chunks(answer)) for answer in seen(run, "stalling")]
    assert median(longest) >= 0.4 - CLOCKS_S
    assert run.of("stalling")["inter_chunk_latency_s"]["max"] == pytest.approx(max(longest))


def test_stream_that_was_cut_is_a_failure_and_in_no_latency(run: Run) -> None:
    cut = run.of("cut")
    assert (cut["ok"], cut["errors"]) == (0, {"truncated": cut["requests"]})
    assert cut["time_to_first_token_s"]["samples"] == cut["end_to_end_s"]["samples"] == 0
    assert all(len(record["token_s"]) <= 3 for record in run.records if record["model"] == "cut")


def test_answers_that_are_not_streamed_have_an_end_but_no_first_token(root: Path, tmp_path: Path) -> None:
    run = run_against_timed_engine(
        root, tmp_path, "--models", "plain", "--no-stream", "--requests", "20", "--concurrency", "4", "-t", "30s"
    )
    plain, origin = run.of("plain"), run.summary["origin_monotonic_s"]
    is_of(plain["end_to_end_s"], [record["ended_s"] - record["sent_s"] for record in run.records])
    assert all(one["ended_s"] + origin >= run.truth[one["request_id"]].ended_s - CLOCKS_S for one in run.records)
    assert plain["output_tokens"] == 20 * OUTPUT_TOKENS
    for name in ("time_to_first_token_s", "inter_token_latency_s", "time_per_output_token_s"):
        assert plain[name]["samples"] == 0
        assert plain["validity"][name] == {"verdict": "n/a", "because": "The answers were not streamed."}


@pytest.fixture
def stalled(root: Path, tmp_path: Path) -> Run:
    """Open loop on an engine that is stopped for 3 s in the middle."""
    with timed_engine() as engine:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "locust", "-f", str(root / "loadgen"), "--headless", "--host", engine.url),
                *("--models", "steady", "--output", str(tmp_path), "--output-tokens", "4", "--rate", "150"),
                *("--arrivals", "constant", "-t", "60s", "--requests", "750", "--max-in-flight", "2000"),
            ],
            cwd=root,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            engine.stop_for(3.0, after_requests=200)
            _, said = process.communicate(timeout=BOUND_S)
        finally:
            process.kill()
        assert "Traceback" not in said, said
        log = engine.log()
    lines = (tmp_path / "requests.jsonl").read_text(encoding="utf-8").splitlines()
    return Run(
        summary=json.loads((tmp_path / "summary.json").read_text(encoding="utf-8")),
        records=[json.loads(line) for line in lines],
        truth={entry["request_id"]: truth_of(entry) for entry in log},
    )


def test_stall_of_three_seconds_is_seconds_in_the_open_loop_tail(stalled: Run) -> None:
    steady = stalled.of("steady")
    assert steady["ok"] == 750
    assert steady["time_to_first_token_s"]["p99"] > 2.0
    assert steady["end_to_end_s"]["p99"] > 2.0


def test_probe_for_the_length_of_prompts_is_no_part_of_the_truth() -> None:
    with timed_engine() as engine:
        body = {"model": "plain", "messages": [{"role": "user", "content": "a b"}], "max_tokens": 1}
        answer = httpx.post(f"{engine.url}/v1/chat/completions", json=body, timeout=30).json()
        assert answer["usage"]["prompt_tokens"] == 11
        assert engine.log() == []
