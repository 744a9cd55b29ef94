"""Questions on retrieved passages: popular ones come again, in other company."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from loadgen._workloads._draws import Zipf, generator
from loadgen._workloads._lengths import Scale, Tokens
from loadgen._workloads._options import Options
from loadgen._workloads._workload import Ask
from loadgen._workloads._writer import Writer, Written

if TYPE_CHECKING:
    from loadgen._gateway import Prepared
    from loadgen._plan import Plan

__all__ = ["Rag"]

_DEFAULTS: Final = {"passages": 4, "passage": 200, "instruction": 48, "question": 32, "answer": 96, "pool": 500}
_POPULARITY: Final = {"zipf": 1.0}
_STREAM: Final = 0x726167


class Rag(Written):
    """An instruction that all share, `passages` of a `pool` of Zipf popularity, a question of the request's own.

    All lengths in tokens. They shrink by one factor where the context is too short.
    """

    def __init__(self, plan: Plan, prepared: Prepared) -> None:
        self._options = options = Options.parse(plan.workload_options, {**_DEFAULTS, **_POPULARITY})
        self._seed = plan.seed
        self._write = Writer(plan, prepared, options)
        self._passages = options.whole("passages")
        self._pool = Zipf(options.whole("pool"), options.number("zipf"))
        number = options.number
        prompt = number("instruction") + self._passages * number("passage") + number("question")
        scale = Scale.of(Tokens(prompt, number("answer")), self._write.room)
        self._factor, self._tokens = scale.factor, scale.fit(prompt, number("answer"))

    def describe(self) -> dict[str, Any]:
        prompt, output = self._tokens
        return {
            "prompt_tokens": prompt,
            "output_tokens": output,
            "scale": round(self._factor, 4),
            **self._options.values,
        }

    def ask(self, index: int) -> Ask:
        prompt, output = self._tokens
        model = self._write.model(index)
        words = self._write.words(model, prompt)
        instruction, passage = (
            self._write.words_within(model, self._options.number(name) * self._factor)
            for name in ("instruction", "passage")
        )
        drawn = self._pool.draw(generator(self._seed, _STREAM, index), self._passages)
        question = max(1, words - instruction - passage * self._passages)
        text = self._write.joined(
            ("instruction", 0, instruction), *(("passage", number, passage) for number in drawn), ("", index, question)
        )
        return self._write.ask(model, text, prompt_tokens=prompt, output_tokens=output)
