"""Workloads are the same whoever asks, have the lengths that they should, and fit into the context."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planned import plan, prepared

from loadgen._errors import LoadError
from loadgen._prompts import VOCABULARY, Calibration, Prompts
from loadgen._workloads import WORKLOADS, Ask, Workload
from loadgen._workloads._lengths import Fitted, length_error
from loadgen._workloads._presets import CHAT_LENGTHS, CODE_LENGTHS, LONG_CONTEXT_LENGTHS
from loadgen._workloads._quantiles import Quantiles
from loadgen._workloads._workload import CHAT, COMPLETIONS, EMBEDDINGS

_CALIBRATION = Calibration(fixed_tokens=9.0, tokens_a_word=1.5, tokens_a_message=4.0)
_PERCENTS = (1, 5, 10, 25, 50, 75, 90, 95, 99)
_DRAWS = 4000
_FILES = {
    "jsonl": '{"messages": [{"role": "user", "content": "hi"}]}\n{"prompt": "go on", "max_tokens": 3, "top_p": 0.5}\n',
    "trace": '{"timestamp": 0, "input_length": 1500, "output_length": 40, "hash_ids": [7, 8, 9]}\n'
    '{"timestamp": 0, "input_length": 1100, "output_length": 20, "hash_ids": [7, 8, 5]}\n',
}


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("workloads")
    for name, text in _FILES.items():
        (folder / name).write_text(text, encoding="utf-8")
    return {name: folder / name for name in _FILES}


def workload(
    name: str,
    *arguments: str,
    file: Path | None = None,
    context: int | None = 1024,
    models: tuple[str, ...] = ("a", "b"),
) -> Workload:
    of_file = ("--workload-file", str(file)) if file is not None else ()
    return WORKLOADS[name](
        plan("--workload", name, *of_file, *arguments), prepared(*models, calibration=_CALIBRATION, context=context)
    )


def words_of(ask: Ask) -> list[str]:
    """Of the whole prompt."""
    body = ask.body
    if "messages" in body:
        return " ".join(message["content"] for message in body["messages"]).split()
    prompt: Any = body.get("prompt", body.get("input"))
    return (prompt if isinstance(prompt, str) else " ".join(prompt)).split()


def tokens_of(ask: Ask) -> float:
    """As the calibrated server would count them."""
    messages = len(ask.body.get("messages", ())) or 1
    extra = (messages - 1) * _CALIBRATION.tokens_a_message
    return _CALIBRATION.tokens(len(words_of(ask))) + extra


@pytest.mark.parametrize("name", sorted(WORKLOADS))
@given(index=st.integers(0, 10_000), seed=st.integers(0, 2**31), salt=st.sampled_from(["a", "b"]))
@settings(max_examples=8, deadline=None)
def test_request_is_decided_by_seed_salt_and_index(
    name: str, index: int, seed: int, salt: str, files: dict[str, Path]
) -> None:
    options = ("--seed", str(seed), "--salt", salt)
    first, second = (workload(name, *options, file=files.get(name)) for _ in range(2))
    for before in range(3):  # what was asked for before changes nothing
        second.ask(before)
    assert first.ask(index) == second.ask(index)


@pytest.mark.parametrize("name", sorted(set(WORKLOADS) - {"jsonl"}))
@given(index=st.integers(0, 10_000))
@settings(max_examples=8, deadline=None)
def test_another_salt_gives_another_text_of_the_same_length(name: str, index: int, files: dict[str, Path]) -> None:
    one, other = (workload(name, "--salt", salt, file=files.get(name)).ask(index) for salt in ("a", "b"))
    assert (one.prompt_tokens, one.output_tokens, one.model) == (other.prompt_tokens, other.output_tokens, other.model)
    assert len(words_of(one)) == len(words_of(other))
    assert words_of(one)[:12] != words_of(other)[:12]


@pytest.mark.parametrize("name", sorted(WORKLOADS))
@given(index=st.integers(0, 100_000), seed=st.integers(0, 2**31), context=st.sampled_from([512, 1024, 4096, 32768]))
@settings(max_examples=8, deadline=None)
def test_prompt_and_answer_fit_into_the_context(
    name: str, index: int, seed: int, context: int, files: dict[str, Path]
) -> None:
    small = ("--prompt-tokens", "48", "--output-tokens", "16", "--seed", str(seed))
    ask = workload(name, *small, file=files.get(name), context=context).ask(index)
    assert tokens_of(ask) + (ask.output_tokens or 0) <= context
    if ask.prompt_tokens is not None and ask.prompt_tokens > 100:
        assert tokens_of(ask) == pytest.approx(ask.prompt_tokens, rel=0.05)


@pytest.mark.parametrize("name", sorted(WORKLOADS))
def test_body_is_json_and_says_what_the_request_says(name: str, files: dict[str, Path]) -> None:
    found = workload(name, file=files.get(name))
    json.dumps(found.describe())
    for index in range(4):
        ask = found.ask(index)
        assert json.loads(json.dumps(ask.body)) == ask.body
        assert ask.body["model"] == ask.model
        assert ask.body.get("max_tokens") == ask.output_tokens
        assert ask.streamed == (ask.endpoint != EMBEDDINGS)


def test_answers_have_equal_lengths_unless_they_may_end_by_themselves() -> None:
    body = workload("fixed", "--output-tokens", "9").ask(0).body
    assert (body["max_tokens"], body["ignore_eos"], body["stream_options"]) == (9, True, {"include_usage": True})
    assert "ignore_eos" not in workload("fixed", "--stop-at-end").ask(0).body
    whole = workload("fixed", "--no-stream").ask(0).body
    assert whole["stream"] is False
    assert "stream_options" not in whole


def test_completions_get_the_same_text_as_chats() -> None:
    chat, completion = (
        workload("fixed", "--workload-options", f"endpoint={name}").ask(5) for name in ("chat", "completions")
    )
    assert (chat.endpoint, completion.endpoint) == (CHAT, COMPLETIONS)
    assert chat.body["messages"] == [{"role": "user", "content": completion.body["prompt"]}]


@pytest.mark.parametrize(
    ("lengths", "prompts", "outputs"),
    [
        (
            CODE_LENGTHS,
            (17, 75, 147, 578, 1469, 2744, 5187, 7303, 7436),
            (6, 6, 7, 9, 13, 24, 55, 90, 251),
        ),
        (
            CHAT_LENGTHS,
            (29, 181, 207, 396, 1020, 1189, 2734, 4083, 4142),
            (16, 41, 54, 85, 129, 395, 424, 451, 601),
        ),
    ],
    ids=["code", "chat"],
)
def test_lengths_have_the_quantiles_of_the_trace(lengths: Any, prompts: Any, outputs: Any) -> None:
    drawn = np.array([Fitted(lengths, seed=1, room=None).of(index) for index in range(_DRAWS)])
    for column, table in ((0, prompts), (1, outputs)):
        for percent, tokens in zip(_PERCENTS, table, strict=True):
            # The share of draws below a quantile: four standard deviations of a binomial.
            share, bound = percent / 100, 4 * (percent / 100 * (1 - percent / 100) / _DRAWS) ** 0.5
            values = drawn[:, column]
            assert np.mean(values < tokens - 1) <= share + bound
            assert np.mean(values <= tokens + 1) >= share - bound


def test_chat_answers_have_the_median_of_their_mode_and_no_rank_correlation_overall() -> None:
    drawn = np.array([Fitted(CHAT_LENGTHS, seed=2, room=None).of(index) for index in range(_DRAWS)])
    prompts, outputs = drawn.T
    for low, high, share, median in (
        (0, 200, 0.07, 143),
        (200, 500, 0.32, 95),
        (500, 2000, 0.46, 390),
        (2000, 1e9, 0.15, 72),
    ):
        within = outputs[(prompts > low) & (prompts <= high)]
        assert len(within) / _DRAWS == pytest.approx(share, abs=0.03)
        # Half below and half above, within four standard deviations.
        assert abs(np.mean(within < median) - 0.5) <= 4 * 0.5 / len(within) ** 0.5
    ranks = np.argsort(np.argsort(drawn, axis=0), axis=0)
    assert abs(np.corrcoef(ranks.T)[0, 1]) < 0.15


def test_lengths_shrink_by_one_factor_so_that_the_shape_stays() -> None:
    free, tight = (Fitted(CHAT_LENGTHS, seed=3, room=room) for room in (None, 1000))
    assert tight.scale.factor == pytest.approx(1000 / (4142 + 601))
    pairs = [(free.of(index), tight.of(index)) for index in range(500)]
    kept = [(whole, scaled) for whole, scaled in pairs if sum(whole) * tight.scale.factor < 998]
    assert len(kept) > 0.97 * len(pairs)
    for whole, scaled in kept:
        assert scaled == pytest.approx([max(1, tokens * tight.scale.factor) for tokens in whole], abs=1)


def test_long_context_shares_a_third_of_its_blocks_once_documents_are_known() -> None:
    found = workload("long-context", "--workload-options", "documents=4", context=None)
    known: set[tuple[str, ...]] = set()
    hits = blocks = 0
    for index in range(150):
        words = words_of(found.ask(index))
        chunks = [tuple(words[: end + 64]) for end in range(0, len(words) - 64, 64)]
        if index >= 50:
            hits += sum(chunk in known for chunk in chunks)
            blocks += len(chunks)
        known.update(chunks)
    assert 0.25 < hits / blocks < 0.366
    medians = [Fitted(LONG_CONTEXT_LENGTHS, seed=1, room=None).of(index)[0] for index in range(2000)]
    assert np.median(medians) == pytest.approx(6248, rel=0.1)


def test_requests_of_a_group_begin_alike_and_of_two_groups_do_not() -> None:
    found = workload("shared-prefix", "--workload-options", "groups=3,prefix=300,zipf=1")
    starts = {tuple(words_of(found.ask(index))[:190]) for index in range(60)}
    assert len(starts) == 3
    assert len({tuple(words_of(found.ask(index))) for index in range(60)}) == 60


@pytest.mark.parametrize(("power", "most"), [(0, 1 / 4), (2, 1 / (1 + 1 / 4 + 1 / 9 + 1 / 16))])
def test_popularity_follows_its_power_and_may_be_equal(power: int, most: float) -> None:
    found = workload("shared-prefix", "--workload-options", f"groups=4,prefix=64,zipf={power}")
    starts = Counter(tuple(words_of(found.ask(index))[:32]) for index in range(400))
    assert len(starts) == 4
    # Four standard deviations of a binomial.
    assert max(starts.values()) / 400 == pytest.approx(most, abs=4 * (most * (1 - most) / 400) ** 0.5)


def test_conversation_grows_by_what_was_said_before() -> None:
    found = workload("multi-turn", "--workload-options", "turns=3,sessions=2")
    turns = [found.ask(index) for index in range(12) if found.ask(index).conversation == 0]
    assert [len(ask.body["messages"]) for ask in turns] == [1, 3, 5]
    assert len({ask.model for ask in turns}) == 1
    for before, after in itertools.pairwise(turns):
        assert after.body["messages"][: len(before.body["messages"])] == before.body["messages"]
    assert [ask.prompt_tokens for ask in turns] == [128, 320, 512]
    assert [found.ask(index).conversation for index in range(12)] == [0, 1] * 3 + [2, 3] * 3


def test_trace_blocks_with_one_id_are_one_text(files: dict[str, Path]) -> None:
    first, second = (words_of(workload("trace", file=files["trace"], context=None).ask(index)) for index in range(2))
    block = round(512 / 1.5)
    assert first[: 2 * block] == second[: 2 * block]
    assert first[2 * block : 2 * block + 8] != second[2 * block : 2 * block + 8]


def test_jsonl_lines_are_sent_as_they_stand(files: dict[str, Path]) -> None:
    found = workload("jsonl", "--output-tokens", "9", file=files["jsonl"])
    chat, completion, again = (found.ask(index) for index in range(3))
    assert (chat.endpoint, chat.body["messages"], chat.output_tokens) == (CHAT, [{"role": "user", "content": "hi"}], 9)
    assert (completion.endpoint, completion.body["prompt"], completion.output_tokens) == (COMPLETIONS, "go on", 3)
    assert completion.body["top_p"] == 0.5
    assert again.body["messages"] == chat.body["messages"]
    assert chat.prompt_tokens is None


@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        ("fixed", ("--prompt-tokens", "2000"), "2000 prompt and 64 output tokens do not fit into a's 1024"),
        ("fixed", ("--workload-options", "context=150"), "the wanted context's 150"),
        ("fixed", ("--workload-options", "groups=3"), "names 'groups'; this workload has context, endpoint"),
        ("shared-prefix", ("--workload-options", "groups=0"), "groups='0' is not a number above 0"),
        ("shared-prefix", ("--workload-options", "groups=1.5"), "groups=1.5 must be a whole number"),
        ("shared-prefix", ("--workload-options", "groups"), "'groups' is not NAME=VALUE"),
        ("chat", ("--workload-options", "endpoint=responses"), "none of chat, completions"),
        ("multi-turn", ("--workload-options", "turns=9"), "turns"),
        ("multi-turn", ("--workload-options", "endpoint=completions"), "chat/completions only"),
        ("jsonl", (), "name it with --workload-file"),
        ("trace", (), "name it with --workload-file"),
    ],
)
def test_plan_that_a_workload_cannot_follow_is_refused(name: str, arguments: tuple[str, ...], says: str) -> None:
    with pytest.raises(LoadError, match=says):
        workload(name, *arguments)


@given(words=st.integers(1, 3 * VOCABULARY), longer=st.integers(0, 500), index=st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_short_text_is_the_beginning_of_a_long_one(words: int, longer: int, index: int) -> None:
    prompts = Prompts(seed=1, salt="s")
    short, long = prompts.text(index, words).split(), prompts.text(index, words + longer).split()
    assert len(short) == words
    assert long[:words] == short


@given(share=st.floats(0, 1))
def test_share_of_a_quantile_is_its_percent(share: float) -> None:
    table = Quantiles({0: 1, 25: 10, 50: 20, 100: 90})
    assert table.share(table.at(share)) == pytest.approx(share, abs=1e-6)


def test_length_error_is_of_what_was_counted() -> None:
    found = length_error([(100, 110), (100, 100), (None, 5), (50, None)])
    assert found == {"requests": 2, "ratio": 1.05, "median_error": 0.05, "p95_error": pytest.approx(0.095)}
    assert length_error([])["ratio"] is None
