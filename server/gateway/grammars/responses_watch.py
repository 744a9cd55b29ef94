"""Follows a stream of OpenAI's Responses API."""

from __future__ import annotations

from array import array
from typing import Final

import msgspec

from server.errors import RequestError
from server.gateway.grammars.event_watch import EventWatch, carried_by
from server.gateway.grammars.responses_form import Numbered, ResponsesEvent
from server.gateway.grammars.splice import change_inner, replace_inner_member
from server.gateway.grammars.usage import UsageNote, with_note
from server.units import Seconds

__all__ = ["ResponsesWatch"]

_LF: Final = b"\n\n"
_event: Final = msgspec.json.Decoder(ResponsesEvent)
_numbered: Final = msgspec.json.Decoder(Numbered)


class ResponsesWatch(EventWatch):
    """Named and numbered events, `response.created` to `response.completed`, which has the usage; no `[DONE]`.

    The numbers make a template useless. A token is told by the first line of its event instead.
    """

    __slots__ = ("_last", "_token_line")

    def __init__(self, *, times: array[float], model: bytes | None, note: UsageNote | None = None) -> None:
        super().__init__(times=times, model=model, note=note)
        self._token_line: bytes | tuple[()] = ()
        self._last = b""

    def feed(self, data: bytes, at: Seconds) -> bytes:
        if (
            data.startswith(self._token_line)
            and data.find(_LF) == len(data) - len(_LF)
            and not self._rest
            and not self._blind
        ):
            self.token_chunks += 1
            self.last_token_at = at
            self._add(at)
            self._last = data
            return data
        out = self._look(data, at)
        self._last = out or self._last
        return out

    def error_event(self, error: RequestError) -> bytes:
        payload = {
            "type": "error",
            "code": error.code or error.type,
            "message": str(error),
            "param": error.param,
            "sequence_number": self._next_number(),
        }
        return b"event: error\ndata: " + msgspec.json.encode(payload) + b"\n\n"

    def _read(self, event: bytes, at: Seconds) -> bytes | None:
        if event.startswith(self._token_line):
            self._token(at)
            return event
        carried = carried_by(event, _event)
        if carried is None:
            return event
        seen, start, end = carried
        self._keep(seen, event, at)
        if seen.response is None or (self._model is None and self._note is None):
            return event
        return event[:start] + self._changed(event[start:end], seen) + event[end:]

    def _changed(self, payload: bytes, seen: ResponsesEvent) -> bytes:
        """An event that shows the response, as the client gets it."""
        if self._model is not None:
            payload = replace_inner_member(payload, "response", "model", self._model)
        usage = seen.response.usage if seen.response is not None else None
        if self._note is not None and usage is not None and not seen.is_failure():
            note = self._note(usage.counts())
            payload = change_inner(payload, "response", lambda response: with_note(response, note))
        return payload

    def _keep(self, seen: ResponsesEvent, event: bytes, at: Seconds) -> None:
        """Keep what an event tells."""
        self.failed = self.failed or seen.is_failure()
        if seen.response is not None and seen.response.usage is not None:
            self.usage = seen.response.usage.counts()
        if seen.is_token():
            self._token(at)
            line = b"event: %b\n" % seen.type.encode()
            if event.startswith(line):
                self._token_line = line

    def _next_number(self) -> int:
        """The number after that of the last event that the client got."""
        carried = carried_by(self._last.rstrip().rpartition(self._separator)[2], _numbered)
        return 0 if carried is None else carried[0].sequence_number + 1
