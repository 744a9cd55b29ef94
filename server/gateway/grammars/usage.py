"""Token counts as engines report them."""

from __future__ import annotations

from typing import Protocol

import msgspec

__all__ = ["Answer", "Reported", "Usage", "WithUsage", "decode_answer"]


class Usage(msgspec.Struct, frozen=True):
    """What an engine said that a request took, whatever the grammar it said it in; None is what it did not say."""

    prompt_tokens: int | None = None
    """All tokens of the prompt, those from the prefix cache included."""
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    """Prompt tokens that came from the prefix cache."""


class Reported(Protocol):
    """Usage as one grammar writes it."""

    def counts(self) -> Usage:
        """The same in the gateway's terms."""


class WithUsage(Protocol):
    """A whole answer as one grammar writes it."""

    @property
    def usage(self) -> Reported | None:
        """None: the engine did not say it."""


class Answer(msgspec.Struct, frozen=True):
    """What the gateway reads of a whole answer."""

    usage: Usage | None = None


def decode_answer(decoder: msgspec.json.Decoder[WithUsage], body: bytes) -> Answer | None:
    """A whole answer; None if it is no JSON object, or its usage is none."""
    try:
        usage = decoder.decode(body).usage
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return Answer(usage.counts() if usage is not None else None)
