"""Reads one streamed answer, line by line; knows no socket and no clock."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Final

import msgspec

__all__ = ["EMPTY", "ERROR_EVENT", "MALFORMED", "TRUNCATED", "ChatStream", "Delta", "Usage", "error_message", "excerpt"]

TRUNCATED: Final = "truncated"
"""The answer ended before `[DONE]`."""
ERROR_EVENT: Final = "error_event"
"""The server said within the answer that it failed."""
MALFORMED: Final = "malformed"
"""A line that is no JSON object of a chunk."""
EMPTY: Final = "empty"
"""A whole answer without a single token."""


class _CachedTokens(msgspec.Struct):
    cached_tokens: int | None = None


class _ReasoningTokens(msgspec.Struct):
    reasoning_tokens: int | None = None


class Usage(msgspec.Struct):
    """The server's own count of tokens."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _CachedTokens | None = None
    completion_tokens_details: _ReasoningTokens | None = None

    @property
    def cached_tokens(self) -> int | None:
        return self.prompt_tokens_details.cached_tokens if self.prompt_tokens_details else None

    @property
    def reasoning_tokens(self) -> int | None:
        return self.completion_tokens_details.reasoning_tokens if self.completion_tokens_details else None


class Delta(msgspec.Struct):
    """A piece of a message, or a whole one."""

    content: Any = None
    reasoning_content: Any = None
    reasoning: Any = None
    tool_calls: Any = None

    @property
    def says_something(self) -> bool:
        return bool(self.content or self.reasoning_content or self.reasoning or self.tool_calls)


class _Choice(msgspec.Struct):
    delta: Delta | None = None
    text: str | None = None
    finish_reason: str | None = None


class _Chunk(msgspec.Struct):
    model: str | None = None
    choices: list[_Choice] | None = None
    usage: Usage | None = None
    error: Any = None


_decode_chunk: Final = msgspec.json.Decoder(_Chunk).decode


class ChatStream:
    """Fed with the lines of a `text/event-stream` body and the time each arrived.

    A token chunk is one whose choice holds text, reasoning or a tool call, however many tokens that is. The frame that
    only opens the answer (`{"role": "assistant", "content": ""}`) and the frame that only closes it are none. Counts of
    tokens are the server's `usage`, never the number of chunks.
    """

    def __init__(self) -> None:
        self.token_at: list[float] = []
        self.done_at: float | None = None
        self.served_by: str | None = None
        self.finish_reason: str | None = None
        self.usage: Usage | None = None
        """The last that came."""
        self._counted: list[int | None] = []
        """Output tokens so far when each token chunk came; None where the chunk did not say."""
        self._failure: tuple[str, str] | None = None
        self._in_error_event = False

    def feed(self, line: bytes, at: float) -> None:
        """One line, with or without its line end. What follows a failure or `[DONE]` changes nothing."""
        line = line.strip()
        if self._failure is not None or self.done_at is not None or not line:
            return
        if line.startswith(b"data:"):
            self._data(line[5:].strip(), at)
        elif line.startswith(b"event:"):
            self._in_error_event = line[6:].strip() == b"error"

    def failure(self) -> tuple[str, str] | None:
        """Kind and message of what is wrong with the answer, asked once its last byte has come; None if it is whole."""
        if self._failure is not None:
            return self._failure
        if self.done_at is None:
            return TRUNCATED, f"The answer ended after {len(self.token_at)} token chunks without [DONE]."
        if not self.token_at:
            return EMPTY, "The answer is whole but holds no token."
        return None

    @property
    def chunk_tokens(self) -> tuple[int, ...] | None:
        """Tokens of each token chunk, where the server counts on in every chunk (`continuous_usage_stats`)."""
        sums = [0, *(so_far for so_far in self._counted if so_far is not None)]
        if len(sums) != len(self._counted) + 1:
            return None
        tokens = tuple(later - earlier for earlier, later in pairwise(sums))
        # A server may count a chunk late; which chunk held what is then unknown.
        return tokens if all(number > 0 for number in tokens) else None

    def _data(self, data: bytes, at: float) -> None:
        if data == b"[DONE]":
            self.done_at = at
            return
        if self._in_error_event:
            self._failure = (ERROR_EVENT, error_message(data))
            return
        try:
            chunk = _decode_chunk(data)
        except (msgspec.DecodeError, UnicodeDecodeError) as exc:
            self._failure = (MALFORMED, f"A chunk is no chunk of a stream ({exc}): {excerpt(data)}")
            return
        if chunk.error:
            self._failure = (ERROR_EVENT, error_message(data))
        else:
            self._chunk(chunk, at)

    def _chunk(self, chunk: _Chunk, at: float) -> None:
        self.served_by = chunk.model or self.served_by
        self.usage = chunk.usage or self.usage
        for choice in chunk.choices or ():
            if choice.text or (choice.delta is not None and choice.delta.says_something):
                self.token_at.append(at)
                self._counted.append(chunk.usage.completion_tokens if chunk.usage else None)
            self.finish_reason = choice.finish_reason or self.finish_reason


def error_message(data: bytes) -> str:
    """What an error, an OpenAI error object or anything else, says."""
    try:
        said = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return excerpt(data)
    error = said.get("error", said) if isinstance(said, dict) else said
    message = error.get("message") if isinstance(error, dict) else error
    return str(message)[:300]


def excerpt(data: bytes) -> str:
    return data[:120].decode("utf-8", errors="replace")
