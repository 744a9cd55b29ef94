"""Follows a stream of Anthropic's Messages API."""

from __future__ import annotations

from array import array
from typing import Any, Final

import msgspec

from server.errors import RequestError
from server.gateway.grammars.event_watch import EventWatch, payload_span
from server.gateway.grammars.messages_form import MessagesUsage, error_body
from server.gateway.grammars.splice import replace_inner_member
from server.units import Seconds

__all__ = ["MessagesWatch"]

_TOKEN_FIELDS: Final = ("text", "thinking", "partial_json")


class _Message(msgspec.Struct):
    usage: MessagesUsage | None = None


class _Event(msgspec.Struct):
    type: str = ""
    message: _Message | None = None
    delta: dict[str, Any] | None = None
    usage: MessagesUsage | None = None

    def is_token(self) -> bool:
        delta = self.delta
        return self.type == "content_block_delta" and delta is not None and any(map(delta.get, _TOKEN_FIELDS))


_event = msgspec.json.Decoder(_Event)


class MessagesWatch(EventWatch):
    """Named events: `message_start` has the prompt's usage, `message_delta` the answer's; no `[DONE]`."""

    __slots__ = ("_known",)

    def __init__(self, *, times: array[float], model: bytes | None) -> None:
        super().__init__(times=times, model=model)
        self._known = MessagesUsage()

    def error_event(self, error: RequestError) -> bytes:
        return b"event: error\ndata: " + error_body(error) + b"\n\n"

    def _read(self, event: bytes, at: Seconds) -> bytes | None:
        span = payload_span(event)
        if span is None:
            return event
        payload = event[span[0] : span[1]]
        try:
            seen = _event.decode(payload)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return event  # not an event of this protocol: the client may know it
        self.failed = self.failed or seen.type == "error"
        if seen.is_token():
            self._token(at)
            self._learn(event, event)
        if seen.usage is not None:
            self._count(seen.usage)
        if seen.message is None:
            return event
        if seen.message.usage is not None:
            # How long the answer will be is not known yet, whatever stands there.
            self._count(msgspec.structs.replace(seen.message.usage, output_tokens=None))
        if self._model is None:
            return event
        return event[: span[0]] + replace_inner_member(payload, "message", "model", self._model) + event[span[1] :]

    def _count(self, usage: MessagesUsage) -> None:
        """The later count is the better one."""
        self._known = self._known.updated(usage)
        self.usage = self._known.counts()
