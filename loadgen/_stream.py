"""Reads one streamed chat answer, line by line; knows no socket and no clock."""

from __future__ import annotations

from typing import Any, Final

import msgspec

__all__ = ["EMPTY", "ERROR_EVENT", "MALFORMED", "TRUNCATED", "ChatStream"]

TRUNCATED: Final = "truncated"
"""The answer ended before `[DONE]`."""
ERROR_EVENT: Final = "error_event"
"""The server said within the stream that it failed."""
MALFORMED: Final = "malformed"
"""A line that is no JSON object of a chat chunk."""
EMPTY: Final = "empty"
"""A whole answer without a single token."""

_TOKEN_FIELDS: Final = ("content", "reasoning_content", "reasoning", "tool_calls")


class ChatStream:
    """Fed with the lines of a `text/event-stream` body and the time each arrived.

    A token chunk is one whose delta holds text, reasoning or a tool call. The frame that only opens the answer
    (`{"role": "assistant", "content": ""}`) and the frame that only closes it are none.
    """

    def __init__(self) -> None:
        self.token_at: list[float] = []
        self.done_at: float | None = None
        self.served_by: str | None = None
        self.finish_reason: str | None = None
        self.prompt_tokens: int | None = None
        self.cached_tokens: int | None = None
        self.output_tokens: int | None = None
        self._failure: tuple[str, str] | None = None
        self._in_error_event = False

    def feed(self, line: bytes, at: float) -> None:
        """One line, with or without its line end. What follows a failure or `[DONE]` changes nothing."""
        line = line.strip()
        if self._failure is not None or self.done_at is not None or not line:
            return
        if line.startswith(b"event:"):
            self._in_error_event = line[6:].strip() == b"error"
        elif line.startswith(b"data:"):
            self._data(line[5:].strip(), at)

    def failure(self) -> tuple[str, str] | None:
        """Kind and message of what is wrong with the answer, asked once its last byte has come; None if it is whole."""
        if self._failure is not None:
            return self._failure
        if self.done_at is None:
            return TRUNCATED, f"The answer ended after {len(self.token_at)} token chunks without [DONE]."
        if not self.token_at:
            return EMPTY, "The answer is whole but holds no token."
        return None

    def _data(self, data: bytes, at: float) -> None:
        if data == b"[DONE]":
            self.done_at = at
            return
        try:
            chunk = msgspec.json.decode(data)
        except msgspec.DecodeError as exc:
            self._failure = (MALFORMED, f"A chunk is not JSON ({exc}): {_excerpt(data)}")
            return
        if self._in_error_event or (isinstance(chunk, dict) and chunk.get("error")):
            self._failure = (ERROR_EVENT, _error_message(chunk))
        elif not isinstance(chunk, dict) or not isinstance(chunk.get("choices", []), list):
            self._failure = (MALFORMED, f"A chunk is no chat chunk: {_excerpt(data)}")
        else:
            self._chunk(chunk, at)

    def _chunk(self, chunk: dict[str, Any], at: float) -> None:
        self.served_by = chunk.get("model") or self.served_by
        for choice in chunk.get("choices") or ():
            delta = choice.get("delta") or {}
            if any(delta.get(field) for field in _TOKEN_FIELDS):
                self.token_at.append(at)
            self.finish_reason = choice.get("finish_reason") or self.finish_reason
        usage = chunk.get("usage")
        if usage:
            self.prompt_tokens = usage.get("prompt_tokens")
            self.output_tokens = usage.get("completion_tokens")
            self.cached_tokens = (usage.get("prompt_tokens_details") or {}).get("cached_tokens")


def _error_message(chunk: Any) -> str:
    error = chunk.get("error", chunk) if isinstance(chunk, dict) else chunk
    message = error.get("message") if isinstance(error, dict) else error
    return str(message)[:300]


def _excerpt(data: bytes) -> str:
    return data[:120].decode("utf-8", errors="replace")
