"""Turns wanted lengths into texts and texts into bodies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from loadgen._arrivals import Times
from loadgen._errors import LoadError
from loadgen._prompts import Prompts
from loadgen._workloads._options import Options
from loadgen._workloads._workload import CHAT, EMBEDDINGS, Ask, Endpoint, Probes

if TYPE_CHECKING:
    from loadgen._gateway import Prepared
    from loadgen._plan import Plan

__all__ = ["Writer", "Written"]

_MARGIN: Final = 0.02
_MARGIN_TOKENS: Final = 8
"""Of a context left free: a text's length is calibrated, not counted."""
_REMEMBERED: Final = 4096
_REMEMBERED_WORDS: Final = 1024
"""Parts that requests share, and how long they may be: 30 MB in all."""


class Writer:
    """What all workloads share: the mix, the words a model makes tokens of, the form of a body."""

    def __init__(self, plan: Plan, prepared: Prepared, options: Options, *, endpoint: Endpoint | None = None) -> None:
        self.endpoint = endpoint or options.endpoint
        self._plan = plan
        self._prepared = prepared
        self._texts: dict[str, Prompts] = {}
        self._shared = lru_cache(_REMEMBERED)(self.text)
        self._longest = {
            id_: longest
            for id_, card in prepared.cards.items()
            if isinstance(longest := card.get("max_model_len"), int)
        }
        self._wanted = {} if options.context is None else {"the wanted context": options.context}
        self.context = min([*self._longest.values(), *self._wanted.values()], default=None)
        """The shortest of the mix, so that prompts are the same whichever model is asked; None: nobody says."""

    @property
    def probes(self) -> Probes:
        return Probes(endpoint=self.endpoint)

    @property
    def room(self) -> int | None:
        """Tokens that prompt and answer may take together, so that they surely fit."""
        return None if self.context is None else max(2, int(self.context * (1 - _MARGIN)) - _MARGIN_TOKENS)

    def model(self, number: int) -> str:
        """The model of request, or conversation, `number`."""
        return self._prepared.mix.pick(number, seed=self._plan.seed)

    def text(self, kind: str, number: int, words: int) -> str:
        """Text `number` of a kind (empty: a request's own); a shorter one is the beginning of a longer one."""
        if kind not in self._texts:
            salt = f"{self._plan.salt}/{kind}" if kind else self._plan.salt
            self._texts[kind] = Prompts(seed=self._plan.seed, salt=salt)
        return self._texts[kind].text(number, words)

    def joined(self, *parts: tuple[str, int, int]) -> str:
        """One text of several, each as `text` makes it."""
        return " ".join(self._part(*part) for part in parts if part[2] > 0)

    def _part(self, kind: str, number: int, words: int) -> str:
        return (
            self._shared(kind, number, words) if kind and words <= _REMEMBERED_WORDS else self.text(kind, number, words)
        )

    def words(self, model: str, tokens: float) -> int:
        """Words of a whole prompt of one message with `tokens` tokens; at least one."""
        return self._prepared.calibrations[model].words(tokens)

    def words_of_message(self, model: str, tokens: float) -> int:
        """Words of a message that is not the first."""
        return self.words_within(model, tokens - self._prepared.calibrations[model].tokens_a_message)

    def words_within(self, model: str, tokens: float) -> int:
        """Words of a part of a prompt: without what the template adds."""
        return max(1, round(tokens / self._prepared.calibrations[model].tokens_a_word))

    def check(self, prompt_tokens: int, output_tokens: int, advice: str) -> None:
        """Raises `LoadError` if the two do not fit into the shortest context."""
        if self.context is not None and prompt_tokens + output_tokens > self.context:
            lengths = {**self._longest, **self._wanted}
            shortest = min(lengths, key=lengths.__getitem__)
            raise LoadError(
                f"{prompt_tokens} prompt and {output_tokens} output tokens do not fit into {shortest}'s "
                f"{self.context}; lower {advice}."
            )

    def ask(
        self, model: str, text: str, *, prompt_tokens: int, output_tokens: int, conversation: int | None = None
    ) -> Ask:
        """One message, or one text to complete."""
        prompt: Any = [{"role": "user", "content": text}] if self.endpoint == CHAT else text
        return self.ask_for(model, prompt, (prompt_tokens, output_tokens), conversation=conversation)

    def ask_for(
        self,
        model: str,
        prompt: str | Sequence[Any],
        tokens: tuple[int | None, int | None],
        *,
        conversation: int | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> Ask:
        """`prompt`: messages, a text, or a list of texts, as the endpoint wants it. `more`: other members."""
        return Ask(
            model=model,
            endpoint=self.endpoint,
            body={**(more or {}), **_prompt(self.endpoint, prompt), **self._answer(model, tokens[1])},
            prompt_tokens=tokens[0],
            output_tokens=tokens[1],
            conversation=conversation,
        )

    def _answer(self, model: str, output_tokens: int | None) -> dict[str, Any]:
        if self.endpoint == EMBEDDINGS:
            return {"model": model}
        return {
            "model": model,
            "max_tokens": output_tokens,
            "temperature": 0,
            "stream": self._plan.stream,
            **({"stream_options": {"include_usage": True}} if self._plan.stream else {}),
            # Answers of exactly that length: engines are compared on equal work.
            **({} if self._plan.stop_at_end else {"ignore_eos": True}),
        }


def _prompt(endpoint: Endpoint, prompt: str | Sequence[Any]) -> dict[str, Any]:
    if endpoint == CHAT:
        return {"messages": prompt}
    return {"input" if endpoint == EMBEDDINGS else "prompt": prompt}


class Written:
    """A workload whose texts a `Writer` makes to their lengths."""

    _write: Writer

    @property
    def probes(self) -> Probes:
        return self._write.probes

    @property
    def times_s(self) -> Times | None:
        return None
