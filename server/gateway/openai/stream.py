"""Follows a streamed answer: counts tokens, finds usage, strips what nobody asked for.

An SSE stream is cut where its events end; a read's whole events go on at once in one piece, the rest waits for its end.
So a client never sees half an event, and an event is stripped whatever the network did to it. Events are parsed until
the first token, and where a finish reason, usage or an error may stand in them; all others are only counted.
"""

from __future__ import annotations

from array import array
from typing import Any, Final

import msgspec

from server.gateway.openai.splice import replace_member
from server.gateway.openai.usage import Usage
from server.units import Seconds

__all__ = ["StreamWatch"]

MAX_HELD_BYTES: Final = 2**20
"""A longer event is passed on blindly: its stream's tokens and usage are unknown from there."""

_LF, _CRLF = b"\n\n", b"\r\n\r\n"
_DATA: Final = b"data:"
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
    usage: Usage | None = None
    error: Any = None


_frame = msgspec.json.Decoder(_Frame)


def _may_end(data: bytes) -> bool:
    """Whether a finish reason, usage or an error stands in it; inside a string their quotes would be escaped."""
    return (
        b'"finish_reason":"' in data
        or b'"usage":{' in data
        or b'"finish_reason": "' in data
        or b'"usage": {' in data
        or b'"error"' in data
    )


def _payload(event: bytes) -> bytes:
    """The JSON object that an event carries; empty if it carries something else."""
    text = event.lstrip()
    if not text.startswith(_DATA):
        return b""
    payload = text[len(_DATA) :].strip()
    return payload if payload.startswith(b"{") else b""


class StreamWatch:
    """One stream, read by read. `times` receives the arrival time of every chunk that carries a token."""

    __slots__ = (
        "_blind",
        "_event_end",
        "_model",
        "_rest",
        "_separator",
        "_strip_usage",
        "_times",
        "failed",
        "first_token_at",
        "last_token_at",
        "token_chunks",
        "usage",
    )

    def __init__(self, *, times: array[float], strip_usage: bool, model: bytes | None) -> None:
        """`model`: the JSON string to put into every frame's `model`, None where the engine's own is right."""
        self._times = times
        self._strip_usage = strip_usage
        self._model = model
        self._separator = _LF
        self._event_end = b"}" + _LF
        self._rest = b""
        self._blind = False
        self.failed = False
        """The engine said in the stream that it failed."""
        self.first_token_at: Seconds | None = None
        self.last_token_at: Seconds | None = None
        self.token_chunks = 0
        self.usage: Usage | None = None

    def feed(self, data: bytes, at: Seconds) -> bytes:
        """Take one read; returns what the client gets of it, which may be nothing."""
        if self._blind:
            return data
        if self._rest:
            data = self._rest + data
            self._rest = b""
        if not data.endswith(self._separator):
            data = self._whole_events(data)
            if not data:
                return data
        if self.first_token_at is None or self._model is not None or _may_end(data):
            return self._parse(data, at)
        self._count(data.count(self._event_end), at)
        return data

    def finish(self, at: Seconds) -> bytes:
        """The stream has ended as it should; returns what was still held."""
        rest, self._rest = self._rest, b""
        return self._parse(rest, at) if rest else b""

    def _whole_events(self, data: bytes) -> bytes:
        """Hold back what follows the last event's end."""
        end = data.rfind(self._separator)
        if end < 0 and self._separator is _LF and _CRLF in data:
            self._separator, self._event_end = _CRLF, b"}" + _CRLF
            end = data.rfind(_CRLF)
        end = 0 if end < 0 else end + len(self._separator)
        if len(data) - end > MAX_HELD_BYTES:
            self._blind = True
            return data
        self._rest = data[end:]
        return data[:end]

    def _count(self, tokens: int, at: Seconds) -> None:
        if tokens == 0:
            return
        self.token_chunks += tokens
        self.last_token_at = at
        if tokens == 1:
            self._times.append(at)
        else:
            self._times.extend([at] * tokens)

    def _parse(self, data: bytes, at: Seconds) -> bytes:
        """Look at every event of `data`."""
        kept: list[bytes] = []
        changed = False
        for event in data.split(self._separator):
            seen = self._see(event, at)
            changed |= seen is not event
            if seen is not None:
                kept.append(seen)
        return self._separator.join(kept) if changed else data

    def _see(self, event: bytes, at: Seconds) -> bytes | None:
        """One event without its blank line; returns it as the client gets it, None if it does not."""
        payload = _payload(event)
        try:
            frame = _frame.decode(payload) if payload else None
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            frame = None  # not a frame of this protocol: the client may know it
        if frame is None:
            return event
        self._note(frame, at)
        if self._strip_usage and frame.usage is not None and not frame.choices:
            return None
        return event if self._model is None else b"data: " + replace_member(payload, "model", self._model)

    def _note(self, frame: _Frame, at: Seconds) -> None:
        """Keep what a frame tells."""
        self.usage = frame.usage or self.usage
        self.failed = self.failed or frame.error is not None
        if self._is_token(frame):
            if self.first_token_at is None:
                self.first_token_at = at
            self._count(1, at)

    def _is_token(self, frame: _Frame) -> bool:
        """Before the first token a choice must show one; afterwards only a bare ending is none."""
        if self.first_token_at is None:
            return any(choice.has_token() for choice in frame.choices)
        return any(choice.has_token() or choice.finish_reason is None for choice in frame.choices)
