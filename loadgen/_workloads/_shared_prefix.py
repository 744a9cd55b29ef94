"""Prompts of groups: all of a group begin alike, as with system prompts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from loadgen._workloads._draws import Zipf, generator
from loadgen._workloads._options import Options
from loadgen._workloads._workload import Ask
from loadgen._workloads._writer import Writer, Written

if TYPE_CHECKING:
    from loadgen._gateway import Prepared
    from loadgen._plan import Plan

__all__ = ["SharedPrefix"]

_DEFAULTS: Final = {"groups": 8, "prefix": 256, "zipf": 1.0}
_STREAM: Final = 0x677270


class SharedPrefix(Written):
    """`prefix` tokens of the group, then `--prompt-tokens` of the request's own; groups of Zipf popularity."""

    def __init__(self, plan: Plan, prepared: Prepared) -> None:
        self._options = options = Options.parse(plan.workload_options, _DEFAULTS)
        self._seed = plan.seed
        self._prefix = options.whole("prefix")
        self._tokens = self._prefix + plan.prompt_tokens, plan.output_tokens
        self._groups = Zipf(options.whole("groups"), options.number("zipf"))
        self._write = Writer(plan, prepared, options)
        self._write.check(*self._tokens, "prefix (--workload-options), --prompt-tokens or --output-tokens")

    def describe(self) -> dict[str, Any]:
        return {"prompt_tokens": self._tokens[0], "output_tokens": self._tokens[1], **self._options.values}

    def ask(self, index: int) -> Ask:
        prompt, output = self._tokens
        model = self._write.model(index)
        group = self._groups.draw(generator(self._seed, _STREAM, index))[0]
        words = self._write.words(model, prompt)
        shared = min(words - 1, self._write.words_within(model, self._prefix))
        text = self._write.joined(("group", group, shared), ("", index, words - shared))
        return self._write.ask(model, text, prompt_tokens=prompt, output_tokens=output)
