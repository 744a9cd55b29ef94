"""Whole answers: in every grammar an object with `model` and `usage`."""

from __future__ import annotations

from typing import Any

import msgspec

from server.gateway.grammars.splice import replace_member
from server.gateway.grammars.usage import Answer, AnswerWithUsage, with_note

__all__ = ["Answers"]


class Answers:
    """What grammars share of `Grammar`."""

    def __init__(self, answer: type[AnswerWithUsage[Any]]) -> None:
        """`answer`: how this grammar writes usage."""
        self._answers = msgspec.json.Decoder(answer)

    def read_answer(self, body: bytes) -> Answer | None:
        try:
            answer = self._answers.decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        return Answer(answer.usage.counts() if answer.usage is not None else None, type(answer.model) is str)

    def rewrite_model(self, body: bytes, known: Answer, model: bytes) -> bytes:
        return replace_member(body, "model", model, is_text=known.names_model)

    def note_usage(self, body: bytes, note: bytes) -> bytes:
        return with_note(body, note)
