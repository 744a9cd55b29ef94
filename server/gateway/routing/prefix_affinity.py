"""Routing policy: a prompt goes where one with the same beginning went."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Final

from server.gateway.routing.least_outstanding import LeastOutstanding
from server.gateway.routing.load import is_overloaded
from server.gateway.routing.policy import Ask
from server.wire import Candidate

__all__ = ["PrefixAffinity"]

_LENGTHS: Final = tuple(128 << step for step in range(6))
"""Of the prefixes that are remembered, bytes of the prompt's JSON: 128 … 4096."""
_LONGEST_TWO: Final = tuple(_LENGTHS[max(0, count - 2) : count][::-1] for count in range(len(_LENGTHS) + 1))
"""The last two of so many lengths, the longer first."""
_LOOK_FOR_PROMPT: Final = 4096
_PROMPTS: Final = (b'"messages"', b'"prompt"', b'"input"')
_ENTRIES: Final = 8192


class PrefixAffinity:
    """Keeps conversations, and prompts that share a long beginning, at the replica that has their KV cached.

    Of each prompt the hashes of two prefixes are remembered: the longest of 128, 256, … 4096 bytes that it has, and
    half of that. A request follows whoever served one with a prefix in common; less than that is too little of its
    prompt to give up balance for. Where there is none, or the replica is overloaded or away, the least busy one serves.
    The index holds a bounded number of prefixes and forgets the one that was not used for longest.
    """

    def __init__(self, entries: int = _ENTRIES) -> None:
        """`entries`: prefixes to remember."""
        self._entries = entries
        self._even = LeastOutstanding()
        self._index: OrderedDict[int, str] = OrderedDict()

    def __len__(self) -> int:
        """Prefixes remembered."""
        return len(self._index)

    def choose(self, candidates: Sequence[Candidate], outstanding: Mapping[str, int], ask: Ask) -> Candidate:
        prefixes = _prefixes(ask.body)
        chosen = None
        for prefix in prefixes:
            name = self._index.get(prefix)
            if name is not None:
                chosen = _named(name, candidates)
                break
        if chosen is None or is_overloaded(chosen, candidates, outstanding):
            chosen = self._even.choose(candidates, outstanding, ask)
        self._remember(prefixes, chosen.replica)
        return chosen

    def _remember(self, prefixes: list[int], replica: str) -> None:
        index = self._index
        for prefix in prefixes:
            index[prefix] = replica
            index.move_to_end(prefix)
        while len(index) > self._entries:
            index.popitem(last=False)


def _prefixes(body: bytes) -> list[int]:
    """Hashes of the two prefixes of the prompt, the longer first; fewer if it is short."""
    start = _prompt_start(body)
    count = min(len(_LENGTHS), ((len(body) - start) // _LENGTHS[0]).bit_length())
    return [hash(body[start : start + length]) for length in _LONGEST_TWO[count]]


def _named(name: str, candidates: Sequence[Candidate]) -> Candidate | None:
    for one in candidates:
        if one.replica == name:
            return one
    return None


def _prompt_start(body: bytes) -> int:
    """Where the prompt begins, so that a seed or a user's name before it does not matter."""
    for name in _PROMPTS:
        start = body.find(name, 0, _LOOK_FOR_PROMPT)
        if start >= 0:
            return start
    return 0
