"""Asks the server how many tokens it makes of words."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from loadgen._mix import base_of
from loadgen._prompts import VOCABULARY, Calibration, probe_text
from loadgen._workloads._workload import CHAT, COMPLETIONS, Endpoint

__all__ = ["PromptTokens", "calibrate", "probe_body"]

PromptTokens = Callable[[str, Sequence[str]], int]
"""(model, messages) → `usage.prompt_tokens` of a prompt of these messages; raises `LoadError`."""

_WORDS_A_CONTEXT: Final = 1 / 8
"""Of a context's tokens: hardly a tokenizer makes more than six of a word here, and a template adds some."""
_MOST_PARTS: Final = 6
"""Of the vocabulary, where a context is too short for all of it at once."""
_SLACK_TOKENS: Final = 1
_LEAST: Final = 0.1
"""Tokens a word: nothing counts fewer, a broken count must not make endless prompts."""


def calibrate(
    models: Sequence[str],
    cards: Mapping[str, Mapping[str, Any]],
    prompt_tokens: PromptTokens,
    *,
    salt: str,
    several_messages: bool,
) -> dict[str, Calibration]:
    """By model. Variants and adapters of one base share a tokenizer, as a rule: there one prompt shows whether so."""
    found: dict[str, Calibration] = {}
    of_base: dict[str, _Probe] = {}
    for model in models:
        probe = _Probe(model, cards.get(model, {}), prompt_tokens, salt)
        known = of_base.get(base_of(model, cards))
        if known is not None and probe.counts_like(known):
            found[model] = found[known.model]
        else:
            found[model] = probe.calibration(several_messages=several_messages)
            of_base[base_of(model, cards)] = probe
    return found


class _Probe:
    """Prompts to one model that hold every word once, in parts that fit into its context."""

    def __init__(self, model: str, card: Mapping[str, Any], prompt_tokens: PromptTokens, salt: str) -> None:
        longest = card.get("max_model_len")
        part = int(longest * _WORDS_A_CONTEXT) if isinstance(longest, int) else VOCABULARY
        size = max(2, min(VOCABULARY, part))
        words = probe_text(VOCABULARY, salt=salt).split()
        self.model = model
        self._parts = [words[at : at + size] for at in range(0, VOCABULARY, size)][:_MOST_PARTS]
        self._other = probe_text(VOCABULARY, salt=f"{salt} check").split()[:size]
        self._tokens_of = prompt_tokens
        self._first: int | None = None

    def counts_like(self, other: _Probe) -> bool:
        """Whether both make as many tokens of the same part."""
        return self._parts == other._parts and abs(self.first() - other.first()) <= _SLACK_TOKENS

    def first(self) -> int:
        """Tokens of the first part."""
        if self._first is None:
            self._first = self._counted(self._parts[0])
        return self._first

    def calibration(self, *, several_messages: bool) -> Calibration:
        """Words that are split into two prompts cost the fixed part once more: so that part is found exactly."""
        whole, rest = self._parts[0], self._parts[1:]
        halves = whole[: len(whole) // 2], whole[len(whole) // 2 :]
        counts = [self._counted(half) for half in halves]
        fixed = max(0, sum(counts) - self.first())
        tokens = self.first() + sum(self._counted(part) for part in rest) - fixed * len(self._parts)
        line = Calibration(
            fixed_tokens=fixed,
            tokens_a_word=max(tokens / sum(map(len, self._parts)), _LEAST),
            tokens_a_message=self._message(halves, counts, fixed) if several_messages else 0.0,
        )
        counted, wanted = self._counted(self._other), line.tokens(len(self._other))
        return dataclasses.replace(line, check_error=round((counted - wanted) / wanted, 4))

    def _message(self, halves: tuple[list[str], list[str]], counts: Sequence[int], fixed: int) -> float:
        """Tokens of a message beyond the first, beside those of its words."""
        texts = [" ".join(half) for half in (halves[0], halves[1], halves[0])]
        words = 2 * counts[0] + counts[1] - 3 * fixed
        return max(0.0, (self._tokens_of(self.model, texts) - fixed - words) / 2)

    def _counted(self, words: Sequence[str]) -> int:
        return self._tokens_of(self.model, [" ".join(words)])


def probe_body(endpoint: Endpoint, model: str, messages: Sequence[str]) -> dict[str, Any]:
    """A request that costs one token of output, or none."""
    if endpoint == CHAT:
        roles = ("user", "assistant")
        turns = [{"role": roles[at % 2], "content": text} for at, text in enumerate(messages)]
        return {"model": model, "messages": turns, "max_tokens": 1, "temperature": 0, "stream": False}
    text = "\n".join(messages)
    if endpoint == COMPLETIONS:
        return {"model": model, "prompt": text, "max_tokens": 1, "temperature": 0, "stream": False}
    return {"model": model, "input": text}
