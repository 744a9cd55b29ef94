"""Follows a stream of Anthropic's Messages API."""

from __future__ import annotations

from array import array
from typing import Final

import msgspec

from server.errors import RequestError
from server.gateway.grammars.event_watch import EventWatch, carried_by
from server.gateway.grammars.messages_form import MessagesEvent, MessagesUsage, error_body
from server.gateway.grammars.splice import replace_inner_member
from server.gateway.grammars.usage import Usage, UsageNote, with_note
from server.units import Seconds

__all__ = ["MessagesWatch"]

_LAST_USAGE: Final = "message_delta"
_event: Final = msgspec.json.Decoder(MessagesEvent)


class MessagesWatch(EventWatch):
    """Named events: `message_start` has the prompt's usage, `message_delta` the answer's; no `[DONE]`."""

    __slots__ = ("_known",)

    def __init__(self, *, times: array[float], model: bytes | None, note: UsageNote | None = None) -> None:
        super().__init__(times=times, model=model, note=note)
        self._known = MessagesUsage()

    def error_event(self, error: RequestError) -> bytes:
        return b"event: error\ndata: " + error_body(error) + b"\n\n"

    def _read(self, event: bytes, at: Seconds) -> bytes | None:
        carried = carried_by(event, _event)
        if carried is None:
            return event
        seen, start, end = carried
        self.failed = self.failed or seen.type == "error"
        if seen.is_token():
            self._token(at)
            self._learn(event, event)
        if seen.usage is not None:
            usage = self._count(seen.usage)
            if self._note is not None and seen.type == _LAST_USAGE:
                return event[:start] + with_note(event[start:end], self._note(usage)) + event[end:]
        if seen.message is None:
            return event
        if seen.message.usage is not None:
            # How long the answer will be is not known yet, whatever stands there.
            self._count(msgspec.structs.replace(seen.message.usage, output_tokens=None))
        if self._model is None:
            return event
        return event[:start] + replace_inner_member(event[start:end], "message", "model", self._model) + event[end:]

    def _count(self, usage: MessagesUsage) -> Usage:
        """All that is known now: the later count is the better one."""
        self._known = self._known.updated(usage)
        self.usage = self._known.counts()
        return self.usage
