"""Conversations whose history grows with each turn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from loadgen._errors import LoadError
from loadgen._workloads._options import Options
from loadgen._workloads._workload import CHAT, Ask, Probes
from loadgen._workloads._writer import Writer, Written

if TYPE_CHECKING:
    from loadgen._gateway import Prepared
    from loadgen._plan import Plan

__all__ = ["MultiTurn"]

_DEFAULTS: Final = {"turns": 4, "sessions": 16}


class MultiTurn(Written):
    """`sessions` conversations side by side, of `turns` turns each; then as many others.

    A turn is a user's message of `--prompt-tokens` and an answer of `--output-tokens`. The history holds answers that
    were made up here, of the same length, and not those of the server: so every request is known beforehand, whoever
    sends it. Request `index` is one turn of session `index` mod `sessions`: between two turns of a conversation all
    others have theirs.
    """

    def __init__(self, plan: Plan, prepared: Prepared) -> None:
        options = Options.parse(plan.workload_options, _DEFAULTS)
        self._user, self._answer = plan.prompt_tokens, plan.output_tokens
        self._turns, self._sessions = options.whole("turns"), options.whole("sessions")
        self._write = Writer(plan, prepared, options)
        self._write.check(
            self._prompt_tokens(self._turns - 1), self._answer, "turns (--workload-options) or the lengths of a turn"
        )
        if options.endpoint != CHAT:
            raise LoadError("--workload multi-turn speaks to /v1/chat/completions only; leave endpoint= out.")

    @property
    def probes(self) -> Probes:
        return Probes(endpoint=CHAT, several_messages=True)

    def describe(self) -> dict[str, Any]:
        return {
            "turns": self._turns,
            "sessions": self._sessions,
            "user_tokens": self._user,
            "answer_tokens": self._answer,
        }

    def ask(self, index: int) -> Ask:
        turn_of_session, session = divmod(index, self._sessions)
        block, turn = divmod(turn_of_session, self._turns)
        conversation = block * self._sessions + session
        model = self._write.model(conversation)
        texts = [self._said(model, conversation, at) for at in range(2 * turn + 1)]
        roles = ("user", "assistant")
        messages = [{"role": roles[at % 2], "content": text} for at, text in enumerate(texts)]
        tokens = self._prompt_tokens(turn), self._answer
        return self._write.ask_for(model, messages, tokens, conversation=conversation)

    def _said(self, model: str, conversation: int, at: int) -> str:
        """Message `at` of a conversation, the user's and the answers in turn."""
        # The template's fixed tokens belong to the first message, its tokens a message to each that follows.
        tokens = self._answer if at % 2 else self._user
        words = self._write.words(model, tokens) if at == 0 else self._write.words_of_message(model, tokens)
        return self._write.text(f"message {at}", conversation, words)

    def _prompt_tokens(self, turn: int) -> int:
        return (turn + 1) * self._user + turn * self._answer
