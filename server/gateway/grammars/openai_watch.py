"""Follows an OpenAI stream of chat or completion chunks."""

from __future__ import annotations

from array import array
from typing import Any, Final

import msgspec

from server.errors import RequestError
from server.gateway.grammars.event_watch import EventWatch, payload_span
from server.gateway.grammars.openai_form import OpenAIUsage, error_event
from server.gateway.grammars.splice import replace_member
from server.units import Seconds

__all__ = ["OpenAIWatch"]

_TOKEN_FIELDS: Final = ("content", "reasoning_content", "reasoning", "tool_calls", "function_call", "refusal", "audio")


class _Choice(msgspec.Struct):
    delta: dict[str, Any] | None = None
    text: str | None = None
    finish_reason: str | None = None

    def has_token(self) -> bool:
        if self.text:
            return True
        delta = self.delta
        return delta is not None and any(delta.get(field) for field in _TOKEN_FIELDS)


class _Frame(msgspec.Struct):
    choices: list[_Choice] = []
    usage: OpenAIUsage | None = None
    error: Any = None


_frame = msgspec.json.Decoder(_Frame)


class OpenAIWatch(EventWatch):
    """A stream of chunks, maybe one with usage, and `[DONE]`."""

    __slots__ = ("_strip_usage",)

    def __init__(self, *, times: array[float], strip_usage: bool, model: bytes | None) -> None:
        super().__init__(times=times, model=model)
        self._strip_usage = strip_usage

    def error_event(self, error: RequestError) -> bytes:
        return error_event(error)

    def _read(self, event: bytes, at: Seconds) -> bytes | None:
        span = payload_span(event)
        if span is None:
            return event
        payload = event[span[0] : span[1]]
        try:
            frame = _frame.decode(payload)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return event  # not a frame of this protocol: the client may know it
        self.failed = self.failed or frame.error is not None
        if frame.usage is not None:
            self.usage = frame.usage.counts()
            if self._strip_usage and not frame.choices:
                return None
        sent = event
        if self._model is not None:
            sent = event[: span[0]] + replace_member(payload, "model", self._model) + event[span[1] :]
        if self._is_token(frame):
            self._token(at)
            if frame.usage is None and frame.error is None and _goes_on(frame):
                self._learn(event, sent)
        return sent

    def _is_token(self, frame: _Frame) -> bool:
        """Before the first token a choice must show one; afterwards only a bare ending is none."""
        if self.first_token_at is None:
            return any(choice.has_token() for choice in frame.choices)
        return any(choice.has_token() or choice.finish_reason is None for choice in frame.choices)


def _goes_on(frame: _Frame) -> bool:
    return all(choice.finish_reason is None for choice in frame.choices)
