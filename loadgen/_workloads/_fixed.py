"""Prompts and answers of one length: what engines are compared with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from loadgen._workloads._options import Options
from loadgen._workloads._workload import Ask
from loadgen._workloads._writer import Writer, Written

if TYPE_CHECKING:
    from loadgen._gateway import Prepared
    from loadgen._plan import Plan

__all__ = ["Fixed"]


class Fixed(Written):
    """Every request has `--prompt-tokens` and `--output-tokens`."""

    def __init__(self, plan: Plan, prepared: Prepared) -> None:
        self._tokens = plan.prompt_tokens, plan.output_tokens
        self._write = Writer(plan, prepared, Options.parse(plan.workload_options))
        self._write.check(*self._tokens, "--prompt-tokens or --output-tokens")

    def describe(self) -> dict[str, Any]:
        return {"prompt_tokens": self._tokens[0], "output_tokens": self._tokens[1]}

    def ask(self, index: int) -> Ask:
        prompt_tokens, output_tokens = self._tokens
        model = self._write.model(index)
        text = self._write.text("", index, self._write.words(model, prompt_tokens))
        return self._write.ask(model, text, prompt_tokens=prompt_tokens, output_tokens=output_tokens)
