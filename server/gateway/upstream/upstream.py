"""What the way to the engines is."""

from __future__ import annotations

from collections.abc import Iterable
from types import TracebackType
from typing import Protocol, Self

from server.units import Seconds
from server.wire import ReplicaAddress

__all__ = ["Exchange", "Upstream"]


class Exchange(Protocol):
    """One request at one replica and its answer, to be used once with `async with`.

    Entering sends the request and returns when the answer's head is there. Leaving gives the connection back if the
    answer was read whole, else closes it at once, which is how an engine learns that nobody waits any more; so does
    cancellation at any point.

    Raises, on entering and on reading: `ContendedError` (no connection came free), `UpstreamFailedError` (refused,
    died, nonsense), `UpstreamTimeoutError` (too slow).
    """

    sent_at: Seconds | None
    """The request's last byte had left for the engine."""
    first_byte_at: Seconds | None
    done_at: Seconds | None
    """The answer's last byte had arrived."""
    retries: int
    status: int
    """Of the answer, once entered; never 1xx."""
    headers: list[tuple[bytes, bytes]]
    """Of the answer; names in lower case."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    async def read(self) -> tuple[Seconds, bytes] | None:
        """The next piece of the body as one network read brought it, and when that was; None after the last.

        While nobody reads, only a bounded amount is held and the engine is made to wait.
        """


class Upstream(Protocol):
    """Sends requests to replicas. Follows no redirects, repeats nothing that an engine may have begun to answer."""

    retries: dict[str, int]
    """Since the worker started, by reason."""

    def exchange(self, replica: ReplicaAddress, path: str, body: bytes) -> Exchange:
        """`POST path` with this JSON body, behind the replica's own prefix and with its own key."""

    def retain(self, replicas: Iterable[ReplicaAddress]) -> None:
        """Only these replicas are left: close what is kept open to others."""

    async def aclose(self) -> None:
        """Close every connection."""
