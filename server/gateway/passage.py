"""Where an engine's stream becomes the client's: piece by piece, and most pieces without being parsed."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Final

from server.clock import Clock
from server.gateway.client import Client
from server.gateway.grammars import StreamWatch
from server.gateway.grammars.template import Template
from server.gateway.token_log import TokenLog
from server.gateway.upstream.splice import Splice
from server.units import Seconds

__all__ = ["Passage"]

_MAX_HEADS: Final = 256
_FRAMING: Final = len(b"\r\n\r\n")
"""Of a chunk, without the digits of its size."""

_END: Final = b"\n\n"
_QUOTE: Final = ord('"')
_BACKSLASH: Final = ord("\\")


class Passage(Splice):
    """Passes one stream on. `take` is right for everything; `data_received` is quick for what is most of a stream.

    Most reads bring one chunk with one token's event, which differs from the one before in its text only (the watch's
    template). Such a chunk goes to the client as it came, framing included, before anybody parses it.
    """

    def __init__(self, watch: StreamWatch, log: TokenLog, client: Client, clock: Clock) -> None:
        self._watch = watch
        self._log = log
        self._client = client
        self._template: Template | None = None
        receiver = self._receive(client.write, log.times.append, clock.monotonic)
        next(receiver)
        # A generator's locals lie side by side and need no look-up: this halves what a chunk costs a cold cache.
        self.data_received = receiver.send

    @property
    def heard_at(self) -> Seconds | None:
        return self._log.last_at

    def close(self) -> None:
        """The stream is over, and nothing can come before the connection has its place again.

        Passage and receiver let go of one another.
        """
        self.data_received = _nothing

    def take(self, at: Seconds, data: bytes) -> None:
        """A part of the body, from the connection."""
        if out := self._watch.feed(data, at):
            self._client.more(out)
        template = self._watch.template
        # Nothing may pass before what the watch still holds. In a stream whose events end so, it holds nothing then.
        whole_events = template is not None and template.behind.endswith(_END) and data.endswith(_END)
        self._template = template if whole_events and self._client.chunked else None

    def _receive(
        self, write: Callable[[bytes], None], note: Callable[[float], None], now: Callable[[], Seconds]
    ) -> Generator[None, bytes, None]:
        """Takes what the reads bring, one by one."""
        heads = _Heads(None)
        start = after = 0
        head = head_out = behind = b""
        while True:
            data = yield
            if heads:
                head, head_out = heads[len(data)]
                start = len(head)
                # Slices and comparisons, because they cost a fraction of `startswith` and `find`.
                if data[:start] == head and data[after:] == behind:
                    text = data[start:after]
                    if _QUOTE not in text and text and text[-1] != _BACKSLASH:
                        write(data if head is head_out else head_out + data[start:])
                        note(now())
                        continue
            self.connection.data_received(data)
            template = self._template if self.between_chunks else None
            if template != heads.template:
                heads = _Heads(template)
                behind = template.behind + b"\r\n" if template is not None else b""
                after = -len(behind)


def _nothing(_data: bytes) -> None:
    """Take nothing."""


class _Heads(dict[int, tuple[bytes, bytes]]):
    """How a chunk of so many bytes, framing included, begins, and what the client gets for that; True if there is one.

    Without a template there is none, and no chunk must pass unread.
    """

    def __init__(self, template: Template | None) -> None:
        self.template = template
        if template is not None:
            self[0] = b"", b""

    def __missing__(self, length: int) -> tuple[bytes, bytes]:
        template = self.template
        assert template is not None, "no template, no look-up"
        digits = next(digits for digits in range(1, 17) if length - digits - _FRAMING < 16**digits)
        size = max(0, length - digits - _FRAMING)
        head = head_out = b"%x\r\n%b" % (size, template.before)
        if template.before_out != template.before:
            size_out = max(0, size - len(template.before) + len(template.before_out))
            head_out = b"%x\r\n%b" % (size_out, template.before_out)
        if len(self) < _MAX_HEADS:
            self[length] = head, head_out
        return head, head_out
