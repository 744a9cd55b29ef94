"""How busy replicas are, for the policies that look at it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from server.wire import Candidate

__all__ = ["is_overloaded", "least_loaded"]

_FACTOR: Final = 2
_SLACK: Final = 4
"""So that a preference holds while little runs, where twice as much means nothing."""


def least_loaded(candidates: Sequence[Candidate], outstanding: Mapping[str, int], start: int = 0) -> int:
    """The index of the candidate with the fewest outstanding requests; among equals the first from `start` on."""
    count = len(candidates)
    best, fewest = -1, 0
    for step in range(start, start + count):
        index = step % count
        load = outstanding.get(candidates[index].replica, 0)
        if best < 0 or load < fewest:
            if not load:
                return index
            best, fewest = index, load
    return best


def is_overloaded(preferred: Candidate, candidates: Sequence[Candidate], outstanding: Mapping[str, int]) -> bool:
    """Whether a preference must yield: more than 4 and twice what the least busy candidate has."""
    load = outstanding.get(preferred.replica, 0)
    if load <= _SLACK:
        return False
    least = min([outstanding.get(one.replica, 0) for one in candidates])
    return load > _SLACK + _FACTOR * least
