"""Texts to embed: no answer, no stream."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from loadgen._workloads._options import Options
from loadgen._workloads._workload import EMBEDDINGS, Ask
from loadgen._workloads._writer import Writer, Written

if TYPE_CHECKING:
    from loadgen._gateway import Prepared
    from loadgen._plan import Plan

__all__ = ["Embeddings"]

_DEFAULTS: Final = {"batch": 1}


class Embeddings(Written):
    """`batch` texts of `--prompt-tokens` each in a request to `/v1/embeddings`."""

    def __init__(self, plan: Plan, prepared: Prepared) -> None:
        options = Options.parse(plan.workload_options, _DEFAULTS)
        self._tokens, self._batch = plan.prompt_tokens, options.whole("batch")
        self._write = Writer(plan, prepared, options, endpoint=EMBEDDINGS)
        self._write.check(self._tokens, 0, "--prompt-tokens")

    def describe(self) -> dict[str, Any]:
        return {"prompt_tokens": self._tokens, "batch": self._batch}

    def ask(self, index: int) -> Ask:
        model = self._write.model(index)
        words = self._write.words(model, self._tokens)
        texts = [self._write.text("", index * self._batch + at, words) for at in range(self._batch)]
        prompt: Any = texts if self._batch > 1 else texts[0]
        return self._write.ask_for(model, prompt, (self._tokens * self._batch, None))
