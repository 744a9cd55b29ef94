"""Training examples from JSONL."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quant.errors import SchemeError, SourceError
from quant.tune.examples import IGNORED, Example, read_examples, split
from quant.tune.settings import Settings


class Letters:
    """A tokenizer with a token for every character, and a template that writes `role:content;`."""

    eos_token = "$"
    chat_template: str | None = "yes"

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        assert not add_special_tokens
        return [ord(letter) for letter in text]

    def apply_chat_template(
        self, messages: list[dict[str, str]], *, tokenize: bool, add_generation_prompt: bool
    ) -> str:
        assert not tokenize
        said = "".join(f"{message['role'][0]}:{message['content']};" for message in messages)
        return f"{said}a:" if add_generation_prompt else said


def written(folder: Path, *lines: Any) -> Path:
    path = folder / "data.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines), encoding="utf-8")
    return path


def learned(example: Example) -> str:
    return "".join(chr(target) for target in example.targets if target != IGNORED)


def read(example: Example) -> str:
    return "".join(map(chr, example.ids))


def test_completion_and_its_end_are_learned_and_the_prompt_is_read(tmp_path: Path) -> None:
    path = written(tmp_path, {"prompt": "ab", "completion": "cd"}, "", {"prompt": "", "completion": "xy"})
    first, second = read_examples(path, Letters(), 99)
    assert (read(first), learned(first)) == ("abcd$", "cd$")
    assert (read(second), learned(second)) == ("xy$", "xy$")


def test_every_message_of_the_assistant_is_learned(tmp_path: Path) -> None:
    roles = [("user", "q"), ("assistant", "r"), ("user", "s"), ("assistant", "t")]
    path = written(tmp_path, {"messages": [{"role": role, "content": text} for role, text in roles]})
    (found,) = read_examples(path, Letters(), 99)
    assert read(found) == "u:q;a:r;u:s;a:t;"
    assert learned(found) == "r;t;"


def test_long_examples_are_cut(tmp_path: Path) -> None:
    (found,) = read_examples(written(tmp_path, {"prompt": "ab", "completion": "cdefg"}), Letters(), 4)
    assert (read(found), learned(found)) == ("abcd", "cd")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "not valid JSON"),
        ("[]", "not a JSON object"),
        ({"prompt": "a"}, "`completion` is missing"),
        ({"prompt": 1, "completion": "a"}, "`prompt` is no text"),
        ({"messages": []}, "`messages` is no list"),
        ({"messages": [{"role": "user"}]}, "`messages` is no list"),
        ({"messages": [{"role": "user", "content": "a"}]}, "nothing to learn"),
        ({"prompt": "abcdefghijk", "completion": "a"}, "nothing to learn within 8 tokens"),
    ],
)
def test_broken_line_is_refused_with_its_number(tmp_path: Path, line: Any, said: str) -> None:
    path = written(tmp_path, {"prompt": "a", "completion": "b"}, line)
    with pytest.raises(SourceError, match=f"line 2: {said}"):
        read_examples(path, Letters(), 8)


def test_messages_need_a_chat_template(tmp_path: Path) -> None:
    tokenizer = Letters()
    tokenizer.chat_template = None
    path = written(tmp_path, {"messages": [{"role": "assistant", "content": "a"}]})
    with pytest.raises(SourceError, match="no chat template"):
        read_examples(path, tokenizer, 8)


@pytest.mark.parametrize("content", ["", "\n\n"])
def test_file_without_examples_is_refused(tmp_path: Path, content: str) -> None:
    with pytest.raises(SourceError, match="has no example"):
        read_examples(written(tmp_path, content), Letters(), 8)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"nothing\.jsonl cannot be read"):
        read_examples(tmp_path / "nothing.jsonl", Letters(), 8)


@given(count=st.integers(1, 60), share=st.floats(0, 0.99), seed=st.integers(0, 9))
def test_split_loses_nothing_and_always_leaves_something_to_train_on(count: int, share: float, seed: int) -> None:
    examples = [Example(ids=(number,), targets=(number,)) for number in range(count)]
    train, judged = split(examples, share, seed)
    assert sorted(example.ids for example in (*train, *judged)) == [(number,) for number in range(count)]
    assert train
    assert (train, judged) == split(examples, share, seed)
    assert bool(judged) == (share > 0 and count > 1)


@pytest.mark.parametrize(("name", "value"), [("steps", 0), ("rank", 0), ("rate", 2.0), ("held_out", 1.0)])
def test_setting_that_makes_no_sense_is_named(name: str, value: float) -> None:
    with pytest.raises(SchemeError, match=f"--{name.replace('_', '-')} "):
        Settings(**{name: value})  # type: ignore[arg-type]
