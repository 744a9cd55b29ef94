"""Follows a stream of OpenAI's Responses API."""

from __future__ import annotations

from array import array
from typing import Any, Final

import msgspec

from server.errors import RequestError
from server.gateway.grammars.event_watch import EventWatch, payload_span
from server.gateway.grammars.splice import replace_inner_member
from server.gateway.grammars.usage import Usage
from server.units import Seconds

__all__ = ["ResponsesUsage", "ResponsesWatch"]

_LF: Final = b"\n\n"


class _InputDetails(msgspec.Struct, frozen=True):
    cached_tokens: int | None = None


class ResponsesUsage(msgspec.Struct, frozen=True):
    """A response's `usage`."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    input_tokens_details: _InputDetails | None = None

    def counts(self) -> Usage:
        """The same in the gateway's terms."""
        details = self.input_tokens_details
        return Usage(self.input_tokens, self.output_tokens, details.cached_tokens if details else None)


class _Response(msgspec.Struct):
    usage: ResponsesUsage | None = None


class _Event(msgspec.Struct):
    type: str = ""
    delta: Any = None
    response: _Response | None = None
    error: Any = None

    def is_token(self) -> bool:
        return self.type.startswith("response.") and self.type.endswith(".delta") and bool(self.delta)

    def is_failure(self) -> bool:
        return self.type in {"error", "response.failed"} or self.error is not None


class _Numbered(msgspec.Struct):
    sequence_number: int = -1


_event = msgspec.json.Decoder(_Event)
_numbered = msgspec.json.Decoder(_Numbered)


class ResponsesWatch(EventWatch):
    """Named and numbered events, `response.created` to `response.completed`, which has the usage; no `[DONE]`.

    The numbers make a template useless. A token is told by the first line of its event instead.
    """

    __slots__ = ("_last", "_token_line")

    def __init__(self, *, times: array[float], model: bytes | None) -> None:
        super().__init__(times=times, model=model)
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
        span = payload_span(event)
        if span is None:
            return event
        payload = event[span[0] : span[1]]
        try:
            seen = _event.decode(payload)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return event  # not an event of this protocol: the client may know it
        self._note(seen, event, at)
        if self._model is None or seen.response is None:
            return event
        return event[: span[0]] + replace_inner_member(payload, "response", "model", self._model) + event[span[1] :]

    def _note(self, seen: _Event, event: bytes, at: Seconds) -> None:
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
        last = self._last.rstrip().rpartition(self._separator)[2]
        span = payload_span(last)
        try:
            return _numbered.decode(last[span[0] : span[1]]).sequence_number + 1 if span else 0
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return 0
