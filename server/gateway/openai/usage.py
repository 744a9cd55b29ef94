"""Token counts as engines report them."""

from __future__ import annotations

import msgspec

__all__ = ["Answer", "Usage", "read_answer"]


class _PromptDetails(msgspec.Struct, frozen=True):
    cached_tokens: int | None = None


class Usage(msgspec.Struct, frozen=True):
    """An engine's `usage`; None is what it did not say."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _PromptDetails | None = None

    @property
    def cached_tokens(self) -> int | None:
        """Prompt tokens that came from the prefix cache."""
        return self.prompt_tokens_details.cached_tokens if self.prompt_tokens_details else None


class Answer(msgspec.Struct, frozen=True):
    """What the gateway reads of a whole answer."""

    usage: Usage | None = None


_answer = msgspec.json.Decoder(Answer)


def read_answer(body: bytes) -> Answer | None:
    """A whole answer; None if it is no JSON object, or its usage is none."""
    try:
        return _answer.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
