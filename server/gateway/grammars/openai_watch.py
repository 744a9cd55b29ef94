"""Follows an OpenAI stream of chat or completion chunks."""

from __future__ import annotations

from array import array
from typing import Final

import msgspec

from server.errors import RequestError
from server.gateway.grammars.event_watch import EventWatch, carried_by
from server.gateway.grammars.openai_form import OpenAIFrame, error_event
from server.gateway.grammars.splice import replace_member
from server.gateway.grammars.usage import UsageNote, with_note
from server.units import Seconds

__all__ = ["OpenAIWatch"]

_frame: Final = msgspec.json.Decoder(OpenAIFrame)


class OpenAIWatch(EventWatch):
    """A stream of chunks, maybe one with usage, and `[DONE]`."""

    __slots__ = ("_strip_usage",)

    def __init__(
        self, *, times: array[float], strip_usage: bool, model: bytes | None, note: UsageNote | None = None
    ) -> None:
        super().__init__(times=times, model=model, note=note)
        self._strip_usage = strip_usage

    def error_event(self, error: RequestError) -> bytes:
        return error_event(error)

    def _read(self, event: bytes, at: Seconds) -> bytes | None:
        carried = carried_by(event, _frame)
        if carried is None:
            return event
        frame, start, end = carried
        self.failed = self.failed or frame.error is not None
        if frame.usage is not None:
            self.usage = frame.usage.counts()
            if self._strip_usage and not frame.choices:
                return None
        changes = self._model is not None or self._note is not None
        sent = event[:start] + self._changed(event[start:end], frame) + event[end:] if changes else event
        if self._is_token(frame):
            self._token(at)
            if frame.usage is None and frame.error is None and _goes_on(frame):
                self._learn(event, sent)
        return sent

    def _changed(self, payload: bytes, frame: OpenAIFrame) -> bytes:
        """A frame as the client gets it."""
        if self._model is not None:
            payload = replace_member(payload, "model", self._model, is_text=type(frame.model) is str)
        if self._note is not None and frame.usage is not None and not frame.choices and frame.error is None:
            payload = with_note(payload, self._note(frame.usage.counts()))
        return payload

    def _is_token(self, frame: OpenAIFrame) -> bool:
        """Before the first token a choice must show one; afterwards only a bare ending is none."""
        if self.first_token_at is None:
            return any(choice.has_token() for choice in frame.choices)
        return any(choice.has_token() or choice.finish_reason is None for choice in frame.choices)


def _goes_on(frame: OpenAIFrame) -> bool:
    return all(choice.finish_reason is None for choice in frame.choices)
