"""Follows a stream of server-sent events: what all grammars have in common.

A stream is cut where its events end; a read's whole events go on at once in one piece, the rest waits for its end. So a
client never sees half an event, and an event can be changed or left out whatever the network did to it.

Every event is parsed, except one that can be told by its bytes: an engine's token events differ in nothing but their
text, one JSON string. So what stands before and behind it in an event that was parsed is the template of those that
follow: an event that has both, and no quote in between, is a token event like that one, whatever the text is.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from array import array
from typing import Final, TypeVar

import msgspec

from server.errors import RequestError
from server.gateway.grammars.template import Template
from server.gateway.grammars.usage import Usage, UsageNote
from server.units import Seconds

__all__ = ["MAX_HELD_BYTES", "EventWatch", "carried_by"]

MAX_HELD_BYTES: Final = 2**20
"""A longer event is passed on blindly: its stream's tokens and usage are unknown from there."""

_LF, _CRLF = b"\n\n", b"\r\n\r\n"
_QUOTE: Final = ord('"')  # a byte is found by its number; by `bytes`, CPython first raises and catches a TypeError
_PAYLOAD: Final = re.compile(rb"^data:[ \t]*(\{[^\n]*\})", re.MULTILINE)
_INSIDE: Final = re.compile(rb'[^"\\]*(?:\\.[^"\\]*)*', re.DOTALL)
_TEXT: Final = re.compile(
    rb'"(?:content|text|delta|reasoning|reasoning_content|arguments|thinking|partial_json)"[ ]?:[ ]?"(?!")'
)
"""The start of a token's text, in any grammar; an empty one is not what changes."""
_LESSONS: Final = 8
"""An engine whose token events differ in more than their text is not worth more attempts at a template."""


P = TypeVar("P")


def carried_by(event: bytes, decoder: msgspec.json.Decoder[P]) -> tuple[P, int, int] | None:
    """The JSON object that an event carries, as the decoder reads it, and where it starts and ends.

    None if there is none in one line, or it is not of this protocol: the client may know it.
    """
    payload = _PAYLOAD.search(event)
    if payload is None:
        return None
    start, end = payload.span(1)
    try:
        return decoder.decode(event[start:end]), start, end
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


class EventWatch(ABC):
    """A grammar's watch says what is in an event (`_read`); when one is a plain token, it shows it to `_learn`."""

    __slots__ = (
        "_add",
        "_after",
        "_before",
        "_before_out",
        "_blind",
        "_learned_at",
        "_lessons",
        "_model",
        "_note",
        "_rest",
        "_seam",
        "_separator",
        "_tail",
        "_text_from",
        "_text_to",
        "_times",
        "failed",
        "first_token_at",
        "last_token_at",
        "template",
        "token_chunks",
        "usage",
    )

    def __init__(self, *, times: array[float], model: bytes | None, note: UsageNote | None = None) -> None:
        self._times = times
        self._add = times.append
        self._model = model
        self._note = note
        self._rest = b""
        self._separator = _LF
        self._blind = False
        self.template: Template | None = None
        # The one in use, whether or not events are changed: `_before`, text, `_after`; `_tail` also has the separator,
        # and `_seam` is what stands between the texts of two events.
        self._before: bytes | tuple[()] = ()  # nothing begins with one of these none
        self._after = self._tail = self._seam = self._before_out = b""
        self._text_from, self._text_to = 1, -1
        self._lessons, self._learned_at = _LESSONS, 0
        self.failed = False
        self.first_token_at: Seconds | None = None
        self.last_token_at: Seconds | None = None
        self.token_chunks = 0
        self.usage: Usage | None = None

    def feed(self, data: bytes, at: Seconds) -> bytes:
        """Take one read; returns what the client gets of it, which may be nothing."""
        if (
            data.startswith(self._before)
            and data.endswith(self._tail)
            and data.find(b'"', self._text_from, self._text_to) < 0
            and not self._rest
        ):
            self.token_chunks += 1
            self.last_token_at = at
            self._add(at)
            return data if self._model is None else self._before_out + data[self._text_from :]
        return self._look(data, at)

    def finish(self, at: Seconds) -> bytes:
        """The stream has ended as it should; returns what was still held."""
        rest, self._rest = self._rest, b""
        return self._each(rest, at) if rest else b""

    @abstractmethod
    def error_event(self, error: RequestError) -> bytes:
        """The last event of this stream, which could not be finished."""

    @abstractmethod
    def _read(self, event: bytes, at: Seconds) -> bytes | None:
        """Read one event without its blank line; returns it as the client gets it, None if it does not."""

    def _token(self, at: Seconds) -> None:
        """An event with a token has come."""
        if self.first_token_at is None:
            self.first_token_at = at
        self.token_chunks += 1
        self.last_token_at = at
        self._add(at)

    def _learn(self, event: bytes, sent: bytes) -> None:
        """Take a plain token's event as the template of those that follow; `sent` is what the client got of it."""
        if self.token_chunks - self._learned_at > _LESSONS:  # the last one was of use
            self._lessons = _LESSONS
        text = _TEXT.search(event)
        if text is None or self._lessons == 0:
            return
        start = text.end()
        inside = _INSIDE.match(event, start)
        if inside is None or not sent.endswith(event[start:]):
            return
        self._lessons -= 1
        self._learned_at = self.token_chunks
        before, self._after = event[:start], event[inside.end() :]
        self._before = before
        self._before_out = sent[: len(sent) - len(event) + start]
        self._tail = self._after + self._separator
        self._seam = self._tail + before
        self._text_from, self._text_to = start, -len(self._tail)
        self.template = Template(before, self._tail, self._before_out)

    def _look(self, data: bytes, at: Seconds) -> bytes:
        """A read that is not one event of the template."""
        if self._blind:
            return data
        if self._rest:
            data = self._rest + data
            self._rest = b""
        if not data.endswith(self._separator):
            data = self._whole_events(data)
        if tokens := self._tokens_only(data):
            self.token_chunks += tokens
            self.last_token_at = at
            self._times.extend([at] * tokens)
            return data
        return self._each(data, at) if data else data

    def _whole_events(self, data: bytes) -> bytes:
        """Hold back what follows the last event's end."""
        end = data.rfind(self._separator)
        if end < 0 and self._separator is _LF and data.find(_CRLF) >= 0:
            self._separator = _CRLF
            self._before, self.template = (), None  # it ends as events did before
            end = data.rfind(_CRLF)
        end = 0 if end < 0 else end + len(self._separator)
        if len(data) - end > MAX_HELD_BYTES:
            self._blind = True
            self._before, self.template = (), None
            return data
        self._rest = data[end:]
        return data[:end]

    def _tokens_only(self, data: bytes) -> int:
        """How many events `data` is, if all are of the template and pass as they came; else 0."""
        if self._model is not None or not (data.startswith(self._before) and data.endswith(self._tail)):
            return 0
        texts = data[self._text_from : self._text_to].split(self._seam)
        escaped = _QUOTE in b"".join(texts)
        return 0 if escaped and not all(map(_INSIDE.fullmatch, texts)) else len(texts)

    def _each(self, data: bytes, at: Seconds) -> bytes:
        """Look at every event of `data`."""
        kept: list[bytes] = []
        changed = False
        for event in data.split(self._separator):
            seen = self._see(event, at) if event else event
            changed |= seen is not event
            if seen is not None:
                kept.append(seen)
        return self._separator.join(kept) if changed else data

    def _see(self, event: bytes, at: Seconds) -> bytes | None:
        """One event, of the template or not."""
        if not (event.startswith(self._before) and event.endswith(self._after)):
            return self._read(event, at)
        end = len(event) - len(self._after)
        if event.find(b'"', self._text_from, end) >= 0 and not _INSIDE.fullmatch(event, self._text_from, end):
            return self._read(event, at)
        self.token_chunks += 1
        self.last_token_at = at
        self._add(at)
        return event if self._model is None else self._before_out + event[self._text_from :]
