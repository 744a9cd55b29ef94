"""Prompts and answers whose lengths are drawn, with or without a part that others share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from loadgen._workloads._draws import Zipf, generator
from loadgen._workloads._lengths import Drawing, Fitted
from loadgen._workloads._options import Options
from loadgen._workloads._presets import (
    CHAT_LENGTHS,
    CODE_LENGTHS,
    LONG_CONTEXT_LENGTHS,
    LONG_CONTEXT_SHARED,
    SUMMARISE_LENGTHS,
)
from loadgen._workloads._workload import Ask
from loadgen._workloads._writer import Writer, Written

if TYPE_CHECKING:
    from loadgen._gateway import Prepared
    from loadgen._plan import Plan

__all__ = ["chat", "code", "long_context", "summarise"]

_AZURE: Final = "Azure LLM inference trace 2023, Microsoft, CC-BY 4.0"
_MOONCAKE: Final = "Mooncake conversation trace, fitted"
_OWN: Final = "made up: an article, and a paragraph on it"
_STREAM: Final = 0x646F63
"""Of the draws of documents."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Preset:
    lengths: Drawing
    source: str
    shared: float = 0.0
    """Part of each prompt that is the beginning of a document, which other prompts share."""


def chat(plan: Plan, prepared: Prepared) -> _Drawn:
    """Conversations with people: prompts and answers by mode."""
    return _Drawn(_Preset(lengths=CHAT_LENGTHS, source=_AZURE), plan, prepared)


def code(plan: Plan, prepared: Prepared) -> _Drawn:
    """Completions in an editor: long prompts, few tokens out."""
    return _Drawn(_Preset(lengths=CODE_LENGTHS, source=_AZURE), plan, prepared)


def summarise(plan: Plan, prepared: Prepared) -> _Drawn:
    """Articles in, paragraphs out."""
    return _Drawn(_Preset(lengths=SUMMARISE_LENGTHS, source=_OWN), plan, prepared)


def long_context(plan: Plan, prepared: Prepared) -> _Drawn:
    """Long prompts, of which a third is the beginning of one of `documents` documents of Zipf popularity."""
    preset = _Preset(lengths=LONG_CONTEXT_LENGTHS, source=_MOONCAKE, shared=LONG_CONTEXT_SHARED)
    return _Drawn(preset, plan, prepared, documents=32, zipf=1.0)


class _Drawn(Written):
    def __init__(self, preset: _Preset, plan: Plan, prepared: Prepared, **defaults: float) -> None:
        options = Options.parse(plan.workload_options, defaults)
        self._preset, self._options, self._seed = preset, options, plan.seed
        self._write = Writer(plan, prepared, options)
        self._lengths = Fitted(preset.lengths, seed=plan.seed, room=self._write.room)
        self._documents = Zipf(options.whole("documents"), options.number("zipf")) if preset.shared else None

    def describe(self) -> dict[str, Any]:
        return {"source": self._preset.source, "scale": round(self._lengths.scale.factor, 4), **self._options.values}

    def ask(self, index: int) -> Ask:
        model = self._write.model(index)
        prompt, output = self._lengths.of(index)
        words = self._write.words(model, prompt)
        text = self._write.text("", index, words)
        if self._documents is not None:
            shared = min(words - 1, round(words * self._preset.shared))
            document = self._documents.draw(generator(self._seed, _STREAM, index))[0]
            text = self._write.joined(("document", document, shared), ("", index, words - shared))
        return self._write.ask(model, text, prompt_tokens=prompt, output_tokens=output)
