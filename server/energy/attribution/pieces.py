"""Parts of an engine's time, and who took part in which."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from server.energy.attribution.attribution import Flags, Floats, Integers, Window
from server.energy.attribution.lives import Lives

__all__ = ["Arrived", "Members", "Pieces", "by_time", "decoding", "sums"]

_MOST_CUTS: Final = 256
"""Of a window: among more requests than that, those beside each other are as good as there together."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pieces:
    """Parts of a window in which an engine had work, apart and in order."""

    begin: Floats
    """It may lie before the window."""
    end: Floats
    inside: Floats
    """Seconds within the window."""
    ended: Flags
    """A cluster of arrivals ends it."""
    whole: Flags
    """It is an iteration, and its beginning is known as well."""
    of_cluster: Integers
    """The piece that each cluster ends."""

    def __len__(self) -> int:
        return len(self.begin)

    @property
    def length(self) -> Floats:
        return self.end - self.begin

    @classmethod
    def of(
        cls, window: Window, lives: Lives, iterations: tuple[Floats, Floats, Flags], rest: tuple[Floats, Floats]
    ) -> Pieces:
        """`iterations` are their beginnings, ends, and whether they are whole; `rest` is what no cluster ends."""
        left, until = _cut(lives, *rest)
        begin, end = np.concatenate([iterations[0], left]), np.concatenate([iterations[1], until])
        order = np.argsort(begin, kind="stable")
        position = np.empty_like(order)
        position[order] = np.arange(len(order))
        clusters = len(iterations[1])
        inside = np.minimum(end, window.end) - np.maximum(begin, window.start)
        return cls(
            begin=begin[order],
            end=end[order],
            inside=np.maximum(0.0, inside)[order],
            ended=order < clusters,
            whole=np.concatenate([iterations[2], np.zeros(len(left), np.bool_)])[order],
            of_cluster=position[:clusters],
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Arrived:
    """The chunks of an engine's streams in a window."""

    request: Integers
    piece: Integers
    """That it ended, or -1: one that was closed with the window before."""
    tokens: Floats
    context: Floats
    first: Flags
    """The prompt was ready with it."""
    together: Flags
    """With its stream's chunk before."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Members:
    """Arrays with an entry for each pair of a request and a piece that it took part in."""

    piece: Integers
    request: Integers
    weight: Floats
    """Decoding: its tokens a step. Prefilling: its prompt tokens in the piece."""
    context: Floats
    """Σ context of those tokens."""
    present: Floats
    """The part of the piece that it was there; 0 for one that is listed already."""


def decoding(lives: Lives, pieces: Pieces, arrived: Arrived) -> Members:
    """By its chunks, or where there can be none, by its time."""
    seen = (arrived.piece >= 0) & ~arrived.first
    by_chunk = Members(
        piece=arrived.piece[seen],
        request=arrived.request[seen],
        weight=arrived.tokens[seen],
        context=(arrived.tokens * arrived.context)[seen],
        present=np.where(arrived.together, 0.0, 1.0)[seen],
    )
    rest = (~pieces.ended).nonzero()[0]
    streams = by_time(pieces, rest, lives.mine & lives.streamed, lives.first, lives.done)
    whole = by_time(pieces, np.arange(len(pieces)), lives.mine & ~lives.streamed, lives.first, lives.done)
    return _joined(by_chunk, *(_with_context(lives, one) for one in (streams, whole)))


def by_time(pieces: Pieces, which: Integers, who: Flags, since: Floats, until: Floats) -> Members:
    """Requests `who` take part in the pieces `which` as far as these overlap their time."""
    owner = (who & (until > since)).nonzero()[0]
    low = np.searchsorted(pieces.end[which], since[owner], "right")
    high = np.searchsorted(pieces.begin[which], until[owner])
    pair, place = _ranges(low, high)
    piece, request = which[place], owner[pair]
    there = np.minimum(pieces.end[piece], until[request]) - np.maximum(pieces.begin[piece], since[request])
    length = pieces.length[piece]
    present = np.clip(there / np.where(length > 0.0, length, 1.0), 0.0, 1.0)
    return Members(piece=piece, request=request, weight=present, context=np.zeros(len(piece)), present=present)


def _cut(lives: Lives, left: Floats, until: Floats) -> tuple[Floats, Floats]:
    """Where answers come whole, nothing but their own beginnings and ends says who was there together."""
    whole = lives.mine & ~lives.streamed
    if not whole.any() or not len(left):
        return left, until
    points = np.concatenate([lives.sent[whole], lives.first[whole], lives.done[whole]])
    points = np.unique(points[np.isfinite(points)])
    points = points[:: 1 + len(points) // _MOST_CUTS]
    owner = np.searchsorted(left, points, "right") - 1
    points = points[(owner >= 0) & (points > left[owner]) & (points < until[owner])]
    return np.sort(np.concatenate([left, points])), np.sort(np.concatenate([until, points]))


def _ranges(low: Integers, high: Integers) -> tuple[Integers, Integers]:
    """All (i, j) with low[i] ≤ j < high[i]."""
    counts = np.maximum(0, high - low)
    pair = np.repeat(np.arange(len(counts)), counts)
    within = np.arange(len(pair)) - np.repeat(np.cumsum(counts) - counts, counts)
    return pair, low[pair] + within


def sums(places: Integers, amounts: npt.NDArray[Any], count: int) -> Floats:
    """Σ of the amounts at each place."""
    return np.asarray(np.bincount(places, amounts, count), np.float64)


def _with_context(lives: Lives, members: Members) -> Members:
    """What they had when the window began, as a token for each step."""
    return replace(members, context=members.weight * lives.context[members.request])


def _joined(*members: Members) -> Members:
    return Members(
        piece=np.concatenate([one.piece for one in members]),
        request=np.concatenate([one.request for one in members]),
        weight=np.concatenate([one.weight for one in members]),
        context=np.concatenate([one.context for one in members]),
        present=np.concatenate([one.present for one in members]),
    )
