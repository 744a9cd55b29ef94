"""Routing policy: an adapter's requests stay at one replica while it can take them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b

from server.gateway.routing.least_outstanding import LeastOutstanding
from server.gateway.routing.load import is_overloaded
from server.gateway.routing.policy import Ask
from server.wire import NO_ADAPTER, Candidate

__all__ = ["AdapterAffinity"]


class AdapterAffinity:
    """Fewer adapters a replica: less swapping and fuller batches. Without an adapter: least outstanding.

    Each adapter ranks the replicas by a hash of both names (rendezvous hashing): all workers agree without a word, and
    a replica that comes or goes moves only its own adapters. While the first in rank is overloaded, the next serves.
    """

    def __init__(self) -> None:
        self._even = LeastOutstanding()
        self._among: tuple[str, ...] = ()
        self._ranked: list[int] = []

    def choose(self, candidates: Sequence[Candidate], outstanding: Mapping[str, int], ask: Ask) -> Candidate:
        adapter = candidates[0].adapter
        if adapter == NO_ADAPTER:
            return self._even.choose(candidates, outstanding, ask)
        for index in self._ranks(adapter, candidates):
            if not is_overloaded(candidates[index], candidates, outstanding):
                return candidates[index]
        return self._even.choose(candidates, outstanding, ask)

    def _ranks(self, adapter: str, candidates: Sequence[Candidate]) -> list[int]:
        """Indices of the candidates, first in rank first; kept for as long as the same ones can serve."""
        among = (adapter, *[one.replica for one in candidates])
        if among != self._among:
            ranks = [_rank(adapter, one.replica) for one in candidates]
            self._among = among
            self._ranked = sorted(range(len(candidates)), key=ranks.__getitem__)
        return self._ranked


def _rank(adapter: str, replica: str) -> bytes:
    return blake2b(f"{adapter}\0{replica}".encode(), digest_size=8).digest()
