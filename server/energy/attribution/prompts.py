"""Which prompt was computed in which piece: engines take prompts in turn, in chunks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Final, NamedTuple

import numpy as np

from server.energy.attribution.attribution import Flags, Floats
from server.energy.attribution.history import History
from server.energy.attribution.lives import Lives
from server.energy.attribution.nnls import robust_fit
from server.energy.attribution.pieces import Arrived, Members, Pieces, by_time, sums

__all__ = ["Pace", "Queue", "Turn"]

_SAMPLES: Final = 512
_LEAST_SAMPLES: Final = 8
_TOLERATED: Final = 0.05
"""Of the mean time beyond: lengths of single iterations vary so much."""
_NOISE: Final = 0.1
"""Of a step: pieces longer by less than that are not longer."""
_EARLIER: Final = 1.5
"""Pieces: what was sent so long before a turn's first piece was computed in part before it."""
_LEAST_PART: Final = 0.02
"""Of a prompt: less was not computed in a piece, it is noise."""
_MEMORY: Final = 0.99
"""Of the largest chunk, for each window."""
_BEFORE: Final = 1e-9
"""Seconds: what began with a request's sending began after it."""


class Turn(NamedTuple):
    """Requests whose prompts were ready together."""

    members: Sequence[int]
    """In the order in which they were sent; the first may have begun in earlier pieces."""
    first: int
    """The piece in which its first member may have begun."""
    last: int
    ready: bool
    """In `last`; else later than this window."""
    shared: bool
    """The turn before was ready in `first`, which may have left room."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Queue:
    """Who may have been prefilling, before anybody knows how long it took."""

    turns: Sequence[Turn]
    whole: Members
    """Of answers that come whole: by their time."""
    waiting: Flags
    """Of each piece: somebody may have been prefilling."""
    adapter: Flags
    """Of each piece: likewise, with an adapter."""
    first: Flags
    """Of each piece: a prompt was ready at its end."""

    @classmethod
    def of(cls, lives: Lives, pieces: Pieces, arrived: Arrived, pause: float) -> Queue:
        """`pause`: first tokens that are further apart did not come together."""
        whole = by_time(pieces, np.arange(len(pieces)), lives.mine & ~lives.streamed, lives.sent, lives.first)
        turns = list(_turns(lives, pieces, arrived, pause))
        waiting = sums(whole.piece, whole.present, len(pieces)) > 0.0
        adapter = sums(whole.piece, lives.adapter[whole.request], len(pieces)) > 0.0
        first = np.zeros(len(pieces), np.bool_)
        for turn in turns:
            waiting[turn.first : turn.last + 1] = True
            adapter[turn.first : turn.last + 1] |= lives.adapter[turn.members[0]]
            adapter[turn.last] |= bool(lives.adapter[list(turn.members)].any())
            first[turn.last] |= turn.ready
        return cls(turns=turns, whole=whole, waiting=waiting, adapter=adapter, first=first)


class Pace:
    """What prompt tokens take beyond a decoding step: a line, learned from prompts that had their pieces to themselves.

    It need not go through 0: in each piece, some of a prompt is computed while weights are read for the others.
    """

    def __init__(self) -> None:
        self._history = History(_SAMPLES, 3)
        self.token_s = 0.0
        """0: not known."""
        self._hidden_s = 0.0
        self._most = 0.0
        self._computed: dict[float, float] = {}
        """By when it was sent: prompt tokens that were computed in the windows before."""

    def learn(self, queue: Queue, lives: Lives, pieces: Pieces, beyond: Floats) -> None:
        """`beyond`: by how much each piece is longer than a decoding step."""
        if not np.isfinite(beyond).all():
            return
        rows = [
            row
            for turn, after in zip_longest(queue.turns, queue.turns[1:])
            if not (after is not None and after.first == turn.last)
            and (row := _beyond_of(turn, lives, pieces, beyond)) is not None
        ]
        if rows:
            self._history.add(np.array(rows))
            self._fit()

    def tokens(self, beyond: Floats) -> Floats:
        """How many were computed in each piece."""
        return np.asarray(np.maximum(0.0, beyond + self._hidden_s) / self.token_s, np.float64)

    def _fit(self) -> None:
        rows = self._history.rows
        if len(rows) < _LEAST_SAMPLES or not self._history.due():
            return
        count = rows[:, 1]
        columns = np.column_stack([rows[:, 0], count, -count])
        (token_s, more, less), _ = robust_fit(columns, rows[:, 2], tolerated=_TOLERATED)
        if token_s > 0.0:
            self.token_s, self._hidden_s = float(token_s), float(less - more)

    def chunks(self, queue: Queue, lives: Lives, pieces: Pieces, beyond: Floats, decoding: Floats) -> Members:
        """Prompt tokens of each request in each piece; `decoding` are the tokens that were written in it."""
        tokens = self.tokens(beyond) if self.token_s and np.isfinite(beyond).all() else None
        left = np.zeros(len(pieces)) if tokens is None else self._room(pieces, decoding, tokens)
        found: list[tuple[int, int, float]] = []
        before, self._computed = self._computed, {}
        for turn in queue.turns:
            head, *others = turn.members
            # Those that get ready together later than this window are alike as well while it goes on.
            share = (
                1.0 if turn.ready or tokens is None else _share_of(left[turn.last], lives.prompt[list(turn.members)])
            )
            for one in others:
                part = share * float(lives.prompt[one])
                if part > 0.0:
                    found.append((turn.last, one, part))
                    left[turn.last] -= part
            sent = float(lives.sent[head])
            done = before.get(sent, 0.0)
            prompt = max(1.0, float(lives.prompt[head]) - done)
            room = share * prompt
            for piece, part in enumerate(self._of_head(turn, prompt, pieces, left, tokens, room), turn.first):
                if part > 0.0:
                    found.append((piece, head, part))
                    left[piece] -= part
                    done += part if pieces.ended[piece] else 0.0
            if not turn.ready:
                self._computed[sent] = done
        columns = np.array(found, np.float64).reshape(-1, 3)
        at, who, weight = columns[:, 0].astype(np.int64), columns[:, 1].astype(np.int64), columns[:, 2]
        if tokens is not None:
            weight = weight * _so_far(pieces, tokens, sums(at, weight, len(pieces)))[at]
        length = pieces.length[queue.whole.piece]
        whole = lives.prompt / np.maximum(_BEFORE, lives.first - lives.sent)
        return Members(
            piece=np.concatenate([at, queue.whole.piece]),
            request=np.concatenate([who, queue.whole.request]),
            weight=np.concatenate([weight, whole[queue.whole.request] * queue.whole.present * length]),
            context=np.zeros(len(at) + len(length)),
            present=np.concatenate([np.ones(len(at)), queue.whole.present]),
        )

    def _room(self, pieces: Pieces, decoding: Floats, tokens: Floats) -> Floats:
        """Tokens for which each piece had room: an iteration that goes on has as much as any had lately."""
        seen = tokens[pieces.whole & (decoding > 0.0)]
        self._most = max(_MEMORY * self._most, float(seen.max(initial=0.0)))
        room = tokens.copy()
        if len(room) and not pieces.ended[-1]:
            room[-1] = max(room[-1], self._most)
        return room

    @staticmethod
    def _of_head(turn: Turn, prompt: float, pieces: Pieces, left: Floats, tokens: Floats | None, room: float) -> Floats:
        """Tokens of a turn's first member, which has `prompt` to compute, piece after piece.

        `room` is what the last of them has for it, if the turn is not ready.
        """
        own = slice(turn.first, turn.last + 1)
        length = pieces.length[own]
        if tokens is None:
            return np.asarray(length * (prompt / max(_BEFORE, float(length.sum()))), np.float64)
        parts = tokens[own].copy()
        if turn.shared:
            parts[0] = max(0.0, left[turn.first])
        if len(parts) > 1:
            # What the pieces before had room for; the rest, and at least something, was in the last.
            before = np.minimum(np.cumsum(parts[:-1]), prompt)
            parts[:-1] = np.diff(before, prepend=0.0)
            parts[-1] = max(1.0, prompt - before[-1])
        else:
            parts[-1] = prompt
        if not turn.ready:
            parts[-1] = min(parts[-1], room)
        parts[:-1][parts[:-1] < _LEAST_PART * prompt] = 0.0
        return parts


def _share_of(room: float, prompts: Floats) -> float:
    """The part of each of these prompts for which there is room."""
    wanted = float(prompts.sum())
    return min(1.0, max(0.0, room) / wanted) if wanted else 0.0


def _beyond_of(turn: Turn, lives: Lives, pieces: Pieces, beyond: Floats) -> tuple[float, float, float] | None:
    """A turn's prompt tokens, how many pieces were longer for them, and by how much together; None: it tells nothing.

    Of a short prompt all may hide behind the reading of weights, and then the piece is no longer than others: such
    pieces say nothing of what tokens cost.
    """
    own = slice(turn.first, turn.last + 1)
    head = turn.members[0]
    began_before = lives.sent[head] < pieces.begin[turn.first] - _EARLIER * pieces.length[turn.first]
    if not turn.ready or turn.shared or began_before or not pieces.whole[own].all():
        return None
    longer = beyond[own] > _NOISE * (pieces.length - beyond)[own]
    if not longer.any() or np.count_nonzero(longer) < len(longer) - 1:
        return None
    tokens = float(lives.prompt[list(turn.members)].sum())
    return tokens, float(np.count_nonzero(longer)), float(beyond[own][longer].sum())


def _so_far(pieces: Pieces, tokens: Floats, planned: Floats) -> Floats:
    """The part of the tokens planned for each piece that was computed in it."""
    part = np.clip(tokens / np.where(planned > 0.0, planned, 1.0), 1e-6, 1.0)
    return np.asarray(np.where(pieces.ended, 1.0, part), np.float64)


def _turns(lives: Lives, pieces: Pieces, arrived: Arrived, pause: float) -> Iterator[Turn]:
    if not len(pieces):
        return
    ready = np.full(len(lives.sent), -1)
    came = arrived.first
    ready[arrived.request[came]] = np.where(arrived.piece[came] >= 0, arrived.piece[came], -2)
    until = np.minimum(lives.first, lives.done)
    open_ = lives.mine & lives.streamed & ~lives.ready_before & (until > pieces.begin[0]) & (ready > -2)
    who = open_.nonzero()[0]
    who = who[np.lexsort([lives.sent[who], until[who]])]
    if not len(who):
        return
    times = until[who]
    with np.errstate(invalid="ignore"):
        apart = np.diff(times) > pause  # nan, of two that nobody knows: they go together
    same_piece = (ready[who[1:]] == ready[who[:-1]]) & (ready[who[1:]] >= 0)
    starts = np.concatenate([[0], (apart & ~same_piece).nonzero()[0] + 1, [len(who)]])
    # Where each could begin at the earliest: with the piece that began after it was sent.
    earliest = np.searchsorted(pieces.begin, lives.sent - _BEFORE)
    before = -1
    for low, high in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
        members = who[low:high]
        members = members[np.argsort(lives.sent[members], kind="stable")].tolist()
        head = members[0]
        is_ready = bool(ready[members].max() >= 0)
        if not np.isfinite(until[head]):
            members = members[:1]  # nobody knows who goes with whom: in turn, then
        last = int(ready[members].max()) if is_ready else int(np.searchsorted(pieces.begin, until[head])) - 1
        first = max(int(earliest[head]), before)
        if is_ready:
            first = min(first, last)
        if first <= last:
            yield Turn(members, first, last, is_ready, first == before)
        before = max(before, last)
