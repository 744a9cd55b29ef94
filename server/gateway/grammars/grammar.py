"""What a grammar is: how one family of endpoints writes requests, streams, answers and errors."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from typing import Any, Protocol

from server.errors import RequestError
from server.gateway.grammars.calls import Call
from server.gateway.grammars.template import Template
from server.gateway.grammars.usage import Answer, Usage, UsageNote
from server.units import Seconds

__all__ = ["Grammar", "StreamWatch"]


class StreamWatch(Protocol):
    """Follows one streamed answer, read by read."""

    failed: bool
    """The engine said in the stream that it failed."""
    first_token_at: Seconds | None
    """None: no token has come."""
    last_token_at: Seconds | None
    token_chunks: int
    """Events that carried at least one token."""
    usage: Usage | None
    """None: the engine has not said it."""
    template: Template | None
    """Of this stream's usual token event; None: there is none (yet).

    Such an event may pass without `feed` if its time is kept as `feed` keeps it; who does that sets `token_chunks` and
    `last_token_at` at the end.
    """

    def feed(self, data: bytes, at: Seconds) -> bytes:
        """Take one read that came `at`; returns what the client gets of it, which may be nothing.

        Well under 1 µs for the usual read, one event with one token. Never raises.
        """

    def finish(self, at: Seconds) -> bytes:
        """The stream has ended as it should; returns what was still held back."""

    def error_event(self, error: RequestError) -> bytes:
        """The last event of this stream, which could not be finished."""


class Grammar(Protocol):
    """Stateless; one instance serves all requests of its endpoints."""

    error_schema: Mapping[str, Any]
    """What `error_body` writes, as a JSON schema."""

    def parse(self, body: bytes) -> Call:
        """Read the deciding fields; raises `BadRequestError` that names the place or the field, and nothing else."""

    def asks_for_usage(self, call: Call) -> bool:
        """Whether the client gets the stream's usage without the gateway's asking for it. Raises `BadRequestError`."""

    def upstream_body(self, body: bytes, call: Call, *, upstream_model: str, add_usage: bool) -> bytes:
        """The client's bytes with what the engine must read otherwise, and no other change.

        `add_usage`: the gateway wants a stream's usage though the client did not ask for it.
        """

    def watch(
        self, *, times: array[float], strip_usage: bool, model: bytes | None, note: UsageNote | None = None
    ) -> StreamWatch:
        """For one stream.

        `times` receives the arrival time of every event that carries a token. `strip_usage`: the client did not ask for
        the usage frame that the gateway asked for. `model`: the JSON string to put where the engine names its model,
        None where the engine's own is right. `note`: what to say in the stream's last usage; None: nothing.
        """

    def read_answer(self, body: bytes) -> Answer | None:
        """What the gateway must know of a whole answer; None if it is no JSON object, or not of this grammar."""

    def rewrite_model(self, body: bytes, known: Answer, model: bytes) -> bytes:
        """A whole answer, with this JSON string as the model's name; `known`: what `read_answer` made of it."""

    def note_usage(self, body: bytes, note: bytes) -> bytes:
        """A whole answer that has usage, with this JSON in it."""

    def error_body(self, error: RequestError) -> bytes:
        """What a client is told instead of an answer."""

    def engine_error(self, body: bytes, status: int, engine: str) -> bytes:
        """An engine's error answer, in this grammar's form; as it came if it has it."""
