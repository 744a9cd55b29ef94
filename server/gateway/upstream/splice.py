"""Receives in an upstream connection's place, so that what it knows by its bytes goes on without a detour."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from server.units import Seconds

if TYPE_CHECKING:
    from server.gateway.upstream.connection import Connection

__all__ = ["Splice"]


class Splice:
    """Between transport and connection while a body is piped; what it does not take itself it hands on.

    A splice may keep for itself what a read brought `between_chunks`, if that is exactly one whole chunk, framing
    included: then the connection's parser has missed nothing.
    """

    connection: Connection
    data_received: Callable[[bytes], None]
    """Takes what a read brought. No method: it is called for every chunk, and may be something quicker."""

    @property
    def heard_at(self) -> Seconds | None:
        """When it last kept something; None: never."""
        return None

    @property
    def between_chunks(self) -> bool:
        """Whether the next byte begins a chunk of a body in chunks."""
        return self.connection.between_chunks

    def eof_received(self) -> None:
        self.connection.eof_received()

    def pause_writing(self) -> None:
        self.connection.pause_writing()

    def resume_writing(self) -> None:
        self.connection.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self.connection.connection_lost(exc)
