"""Token counts as engines report them, and what a client may find beside them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Generic, Protocol, TypeVar

import msgspec

from server.gateway.grammars.splice import change_inner, set_member

__all__ = ["NOTE_MEMBER", "Answer", "AnswerWithUsage", "Reported", "Usage", "UsageNote", "with_note"]

NOTE_MEMBER: Final = "wattgate"
"""Of a usage object: what the gateway says there."""


class Usage(msgspec.Struct, frozen=True):
    """What an engine said that a request took, whatever the grammar it said it in; None is what it did not say."""

    prompt_tokens: int | None = None
    """All tokens of the prompt, those from the prefix cache included."""
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    """Prompt tokens that came from the prefix cache."""


UsageNote = Callable[[Usage], bytes]
"""What to say, in JSON, beside this usage, which is a request's last."""


def with_note(body: bytes, note: bytes) -> bytes:
    """An object that has a `usage` with the note in it."""
    return change_inner(body, "usage", lambda usage: set_member(usage, NOTE_MEMBER, note))


class Reported(Protocol):
    """Usage as one grammar writes it."""

    def counts(self) -> Usage:
        """The same in the gateway's terms."""


R = TypeVar("R", bound=Reported)


class AnswerWithUsage(msgspec.Struct, Generic[R]):
    """A whole answer as one grammar writes it; None: the engine did not say it."""

    usage: R | None = None
    model: Any = None


class Answer(msgspec.Struct, frozen=True):
    """What the gateway reads of a whole answer."""

    usage: Usage | None = None
    names_model: bool = False
    """It has a `model`, which is a string."""
