"""Reads training examples from JSONL: token ids, and which of them are to be learned.

A line is `{"prompt": "…", "completion": "…"}` or `{"messages": [{"role": "…", "content": "…"}, …]}`. Learned are the
completion and its end token, or every message of the role `assistant`; of the rest the model only reads.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from quant.errors import SourceError

__all__ = ["IGNORED", "Example", "read_examples", "split"]

IGNORED: Final = -100
"""The target of a token that is not learned: torch's default `ignore_index`."""
_FORMS: Final = '{"prompt": "…", "completion": "…"} or {"messages": [{"role": "…", "content": "…"}, …]}'


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One line; `targets` are the ids, or `IGNORED`."""

    ids: tuple[int, ...]
    targets: tuple[int, ...]


def read_examples(path: Path, tokenizer: Any, length: int) -> list[Example]:
    """Every line of `path` that is not empty, cut to `length` tokens.

    Raises `SourceError` for a line that is broken, with its number.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        raise SourceError(f"{path} cannot be read as text: {exc}. Give a UTF-8 file of JSON lines.") from exc
    examples = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                examples.append(_example(line, tokenizer, length))
            except ValueError as exc:
                raise SourceError(f"{path}, line {number}: {exc}. Give {_FORMS}.") from exc
    if not examples:
        raise SourceError(f"{path} has no example. Give one JSON object a line: {_FORMS}.")
    return examples


def split(examples: Sequence[Example], share: float, seed: int) -> tuple[list[Example], list[Example]]:
    """Examples to train on, and examples held out: at least one of each where there are two."""
    shuffled = random.Random(seed).sample(list(examples), len(examples))  # noqa: S311 - a fixed seed, no secret
    count = min(max(round(share * len(shuffled)), 1 if share else 0), len(shuffled) - 1)
    return shuffled[count:], shuffled[:count]


def _example(line: str, tokenizer: Any, length: int) -> Example:
    """Raises `ValueError` with what is wrong."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as exc:
        raise ValueError(f"not valid JSON ({exc})") from exc
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    parts = _dialogue(value["messages"], tokenizer) if "messages" in value else _pair(value, tokenizer)
    ids: list[int] = []
    targets: list[int] = []
    for text, learned in parts:
        found = tokenizer.encode(text, add_special_tokens=False)
        ids += found
        targets += found if learned else [IGNORED] * len(found)
    example = Example(ids=tuple(ids[:length]), targets=tuple(targets[:length]))
    if all(target == IGNORED for target in example.targets[1:]):
        raise ValueError(f"nothing to learn within {length} tokens")
    return example


def _pair(value: dict[str, Any], tokenizer: Any) -> list[tuple[str, bool]]:
    prompt, completion = value.get("prompt"), value.get("completion")
    for name, text in (("prompt", prompt), ("completion", completion)):
        if not isinstance(text, str):
            raise ValueError(f"`{name}` is {'missing' if text is None else 'no text'}")
    return [(str(prompt), False), (f"{completion}{tokenizer.eos_token or ''}", True)]


def _dialogue(messages: Any, tokenizer: Any) -> list[tuple[str, bool]]:
    """The chat template's text, cut where the assistant speaks."""
    if not isinstance(messages, list) or not messages or not all(map(_is_message, messages)):
        raise ValueError("`messages` is no list of objects with `role` and `content`, both texts")
    if not tokenizer.chat_template:
        raise ValueError("the base model has no chat template, so `messages` cannot be used")
    parts: list[tuple[str, bool]] = []
    done = ""
    for index, message in enumerate(messages):
        if message["role"] == "assistant":
            before = _rendered(messages[:index], tokenizer, asking=True)
            after = _rendered(messages[: index + 1], tokenizer, asking=False)
            if not after.startswith(before) or not before.startswith(done):
                raise ValueError("the chat template rewrites earlier messages, so `messages` cannot be used")
            parts += [(before[len(done) :], False), (after[len(before) :], True)]
            done = after
    return parts


def _rendered(messages: list[Any], tokenizer: Any, *, asking: bool) -> str:
    if not messages and not asking:
        return ""
    try:
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=asking))
    except Exception as exc:  # a template may raise anything
        raise ValueError(f"the chat template refuses it ({exc})") from exc


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("role"), str) and isinstance(value.get("content"), str)
