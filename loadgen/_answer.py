"""An answer as it came over the wire, before anything is read into it."""

from __future__ import annotations

from collections.abc import Callable

from loadgen._stream import ChatStream

__all__ = ["Answer"]

_OK = 200


class Answer:
    """One request's answer; times are seconds since the run's start."""

    def __init__(self, *, streamed: bool, sent_s: float, add_lag: Callable[[float], None]) -> None:
        self.sent_s = sent_s
        self.ended_s = sent_s
        """The last byte's arrival, or the failure."""
        self.status: int | None = None
        """None: no head of an answer has come."""
        self.stream = ChatStream() if streamed else None
        self.body = b""
        """Of a whole answer, or of a refusal."""
        self.failure: tuple[str, str] | None = None
        """Kind and message; a stream knows its own besides."""
        self.receive_lag_s: float | None = None
        """The longest that a byte had waited in the kernel; None where the kernel does not say."""
        self.reads = 0
        self.merged_reads = 0
        """Reads that brought several tokens: the time between those is unknown."""
        self._add_lag = add_lag
        self._rest = b""

    def take(self, status: int, data: bytes, read_s: float, lag_s: float | None) -> None:
        """A part of the body, when it was read, and how long its last byte had waited in the kernel."""
        self.reads += 1
        if lag_s is not None:
            self._add_lag(lag_s)
            self.receive_lag_s = max(lag_s, self.receive_lag_s or 0.0)
            read_s -= lag_s
        # The kernel's clock and ours are not read at the same instant: no part came before the one before it.
        self.ended_s = max(read_s, self.ended_s)
        if self.stream is None or status != _OK:
            self.body += data
        else:
            self._feed(self.stream, data)

    def end(self, status: int | None) -> None:
        """Nothing more comes. A last line may lack its end."""
        self.status = status
        if self.stream is not None and self._rest:
            self.stream.feed(self._rest, self.ended_s)
            self._rest = b""

    def fail(self, kind: str, message: str, at_s: float) -> None:
        self.failure = kind, message
        self.ended_s = max(at_s, self.ended_s)

    def _feed(self, stream: ChatStream, data: bytes) -> None:
        before = len(stream.token_at)
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if line:
                stream.feed(line, self.ended_s)
        self.merged_reads += len(stream.token_at) > before + 1
