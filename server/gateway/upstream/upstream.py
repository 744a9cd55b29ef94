"""What the way to the engines is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from server.gateway.upstream.splice import Splice
from server.units import Seconds
from server.wire import ReplicaAddress

__all__ = ["Exchange", "Sink", "Upstream"]


Sink = Callable[[Seconds, bytes], None]
"""Takes a piece of an answer's body, and when it arrived, within the event loop's callback."""


class Exchange(Protocol):
    """One request at one replica and its answer, to be used once: `begin`, then `whole` or `pipe`, and always `close`.

    `begin`, `whole` and `pipe` may be cancelled, and raise `ContendedError` (no connection came free),
    `UpstreamFailedError` (refused, died, nonsense), `UpstreamTimeoutError` (too slow).
    """

    sent_at: Seconds | None
    """The request's last byte had left for the engine."""
    first_byte_at: Seconds | None
    """Known once the exchange is closed."""
    done_at: Seconds | None
    """The answer's last byte had arrived."""
    resent: int
    """How often the request was sent again, because a kept connection had been closed before it came."""
    status: int
    """Of the answer, once begun; never 1xx."""
    headers: Mapping[bytes, bytes]
    """Of the answer; names in lower case, of each name the last."""

    async def begin(self) -> None:
        """Send the request; returns once the answer's head is there."""

    def whole_now(self) -> bytes | None:
        """The whole body if it has come, in one piece; None: ask `whole`."""

    async def whole(self, limit: int) -> tuple[bytes, bool]:
        """The body, and whether that is all of it: reading stops once it is longer than `limit` bytes.

        What is more may follow through `pipe`, which then begins with what was returned here.
        """

    async def pipe(self, sink: Sink, splice: Splice | None = None) -> None:
        """Give the sink every piece of the body as the network brings it; returns after the last.

        Pieces that were there before are given at once. What the splice keeps, the sink does not get.
        """

    def pause(self) -> None:
        """The client is slow: make the engine wait."""

    def resume(self) -> None:
        """The client has read on."""

    def close(self) -> None:
        """Give the connection back if the answer was read whole, else close it at once.

        Which is how an engine learns that nobody waits any more. May be called again.
        """


class Upstream(Protocol):
    """Sends requests to replicas. Follows no redirects, repeats nothing that an engine may have begun to answer."""

    retries: dict[str, int]
    """Since the worker started, by reason."""

    def exchange(self, replica: ReplicaAddress, path: str, body: bytes, *, whole: bool) -> Exchange:
        """`POST path` with this JSON body, behind the replica's own prefix and with its own key.

        `whole`: the answer is not streamed, so its first byte may take as long as the answer.
        """

    def retain(self, replicas: Iterable[ReplicaAddress]) -> None:
        """Only these replicas are left: close what is kept open to others."""

    async def aclose(self) -> None:
        """Close every connection."""
