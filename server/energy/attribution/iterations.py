"""Recovers an engine's iterations from the arrivals of its streams' tokens.

An engine that batches continuously ends an iteration with one token for each stream that decodes, so arrivals come in
clusters with a pause of a step between them. A cluster's first arrival ends its iteration; the iteration began where
the one before ended, or where work came to an engine that had none. What is left of the time that requests were there
(the last tokens' way home, the start of an iteration that ends after the window, answers that come whole) are pieces
that no cluster ends.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from server.energy.attribution.attribution import Flags, Floats, Integers, Window
from server.energy.attribution.lives import Lives
from server.energy.attribution.pieces import Arrived, Members, Pieces, decoding, sums
from server.energy.attribution.prompts import Queue
from server.units import Seconds

__all__ = ["Iterations", "Sight", "Track"]

_PAUSE: Final = 0.25
"""Of a step: a longer one between two arrivals ends a cluster."""
_FIRST_PAUSE: Final = Seconds(1e-3)
"""Until a step's length is known."""
_LEAST_STEP: Final = Seconds(1e-4)
"""No engine is faster; chunks that are closer came in one read."""
_SAME: Final = Seconds(1e-7)
"""Times that went through other arithmetic are still equal."""
_LEAST_GAPS: Final = 8
"""Fewer in one window do not tell the length of a step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """How clearly the iterations of a window were seen."""

    arrivals: int = 0
    coalesced: int = 0
    """Of them, such that came together with the stream's chunk before: several steps in one read."""
    expected: int = 0
    """If each stream that decoded had a chunk in each cluster."""
    spread: float = 0.0
    """Nine tenths of clusters are no wider, in steps."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Iterations:
    """An engine's time in one window, and who took part."""

    pieces: Pieces
    lives: Lives
    decoding: Members
    queue: Queue
    """Who may have been prefilling."""
    tokens: Floats
    """Of each piece: the n of its step time."""
    context: Floats
    """Of each piece: Σ context."""
    adapter: Flags
    """Of each piece: somebody uses one."""
    sight: Sight


class Track:
    """One engine from window to window: an iteration over a border is whole."""

    def __init__(self) -> None:
        self.step: Seconds | None = None
        """Of decoding, lately."""
        self._window_end = -np.inf
        self._cluster_at = -np.inf
        """When the last cluster began; -inf: nobody knows."""
        self._arrival_at = -np.inf

    def read(self, window: Window, place: int, prompt_token_s: float) -> Iterations:
        """The iterations of `window.engines[place]`; `prompt_token_s` helps where first tokens are not seen."""
        if window.start != self._window_end:
            self._cluster_at = self._arrival_at = -np.inf
        self._window_end = window.end
        lives = Lives.of(window, place, prompt_token_s)
        mine = lives.mine[window.tokens.request]
        times, owner, weight = window.tokens.times[mine], window.tokens.request[mine], window.tokens.tokens[mine]
        before, gap = _in_stream(owner, times, weight)
        self._learn_step(gap)
        together = gap <= self._pause()
        cluster, begun, widths = self._clusters(times, owner, lives.first[owner])
        starts = begun
        if len(begun) and self._is_cut(window, lives, times, owner, cluster == len(begun) - 1):
            starts, cluster = begun[:-1], np.where(cluster == len(begun) - 1, -1, cluster)
        pieces = self._pieces(window, lives, starts)
        arrived = Arrived(
            request=owner,
            piece=np.where(cluster >= 0, pieces.of_cluster[cluster], -1) if len(starts) else np.full(len(times), -1),
            tokens=weight,
            context=lives.context[owner] + before,
            first=times <= lives.first[owner] + _SAME,
            together=together,
        )
        sight = Sight(
            arrivals=len(times),
            coalesced=int(np.count_nonzero(together)),
            expected=_running(lives, begun, len(times)),
            spread=float(np.quantile(widths, 0.9)) / self.step if self.step and len(widths) else 0.0,
        )
        if len(times):
            self._arrival_at = float(times[-1])
        if len(begun):
            self._cluster_at = float(begun[-1])
        return _assemble(lives, pieces, arrived, self._pause(), sight)

    def _is_cut(self, window: Window, lives: Lives, times: Floats, owner: Integers, last: Flags) -> bool:
        """Does the window end in the middle of the last cluster? Then those who came just before would pay for all."""
        at = times[last][0]
        if window.end - at > self._pause() or (times[last] <= lives.first[owner[last]] + _SAME).any():
            return False
        running = lives.mine & lives.streamed & (lives.first < at) & (lives.done > window.end)
        return bool(running[np.setdiff1d(running.nonzero()[0], owner[last])].any())

    def _pause(self) -> float:
        return _FIRST_PAUSE if self.step is None else _PAUSE * self.step

    def _learn_step(self, gap: Floats) -> None:
        """The lower fifth of streams' gaps: the longer ones had prompts in them."""
        known = gap[np.isfinite(gap) & (gap >= _LEAST_STEP)]
        if len(known) >= _LEAST_GAPS:
            typical = known[known >= _PAUSE * np.median(known)]
            self.step = Seconds(float(np.quantile(typical, 0.2)))

    def _clusters(self, times: Floats, owner: Integers, first: Floats) -> tuple[Integers, Floats, Floats]:
        """Each arrival's cluster (-1: the last of the window before), when each began, how wide those of many are.

        `first` is when the prompt of each arrival's stream was ready.
        """
        if not len(times):
            return np.zeros(0, np.int64), times, times
        opens = np.diff(times, prepend=self._arrival_at) > self._pause()
        if self.step is not None:
            _join_halves(opens, times, owner, first, self.step)
        cluster = np.cumsum(opens) - 1
        starts = opens.nonzero()[0]
        ends = np.append(starts[1:], len(times)) - 1 if len(starts) else starts
        widths = (times[ends] - times[starts])[ends > starts]
        return cluster, times[starts], widths

    def _pieces(self, window: Window, lives: Lives, clusters: Floats) -> Pieces:
        start, end = lives.busy()
        before = np.concatenate([[self._cluster_at], clusters])
        spell = np.searchsorted(start, clusters + _SAME, "right") - 1
        came = np.where(spell >= 0, start[spell], -np.inf) if len(start) else np.full(len(clusters), -np.inf)
        begin = np.maximum(before[:-1], came)
        # Of the first, neither the cluster before nor the arrival of work may be known.
        whole = (before[:-1] > -np.inf) | (came >= window.start)
        begin = np.where(whole, begin, np.minimum(window.start, clusters))
        left = np.maximum(np.maximum(start, before[np.searchsorted(clusters, end, "right")]), window.start)
        until = np.minimum(end, window.end)
        kept = until > left
        return Pieces.of(window, lives, (begin, clusters, whole), (left[kept], until[kept]))


def _join_halves(opens: Flags, times: Floats, owner: Integers, first: Floats, step: float) -> None:
    """Join clusters that are one iteration's, in place: something on the way has slept in its middle.

    An iteration has a token for each stream that decodes. So what comes within a step of a cluster that has none of its
    streams, although all of them were decoding, belongs to it.
    """
    starts = opens.nonzero()[0]
    ends = np.append(starts[1:], len(times))
    began = times[starts]
    root = -1
    for place in ((np.diff(began) < step).nonzero()[0] + 1).tolist():
        if root < 0 or opens[starts[place - 1]]:
            root = place - 1
        own = slice(starts[place], ends[place])
        in_time = began[place] - began[root] < step and bool((first[own] < began[root] - _SAME).all())
        if in_time and not np.isin(owner[own], owner[starts[root] : starts[place]]).any():
            opens[starts[place]] = False


def _running(lives: Lives, clusters: Floats, arrivals: int) -> int:
    """Chunks that should have come in these clusters, those of first tokens included."""
    streams = lives.mine & lives.streamed
    begun = np.searchsorted(np.sort(lives.first[streams]), clusters)
    ended = np.searchsorted(np.sort(lives.done[streams]), clusters)
    began_within = int(np.count_nonzero(lives.first[streams] >= clusters[0])) if len(clusters) else 0
    return max(arrivals if len(clusters) == 0 else 0, int((begun - ended).sum()) + began_within)


def _in_stream(owner: Integers, times: Floats, tokens: Floats) -> tuple[Floats, Floats]:
    """For each arrival: its stream's tokens in the window before it, and the time since the last; ∞ for the first."""
    order = np.argsort(owner, kind="stable")
    stream = owner[order]
    same = np.zeros(len(order), np.bool_)
    same[1:] = stream[1:] == stream[:-1]
    before = np.cumsum(tokens[order]) - tokens[order]
    begins = (~same).nonzero()[0]
    before -= before[begins][np.cumsum(~same) - 1] if len(begins) else 0.0
    gap = np.where(same, np.diff(times[order], prepend=-np.inf), np.inf)
    unsorted_before, unsorted_gap = np.empty_like(before), np.empty_like(gap)
    unsorted_before[order], unsorted_gap[order] = before, gap
    return unsorted_before, unsorted_gap


def _assemble(lives: Lives, pieces: Pieces, arrived: Arrived, pause: float, sight: Sight) -> Iterations:
    decodes, queue, count = decoding(lives, pieces, arrived), Queue.of(lives, pieces, arrived, pause), len(pieces)
    return Iterations(
        pieces=pieces,
        lives=lives,
        decoding=decodes,
        queue=queue,
        tokens=sums(decodes.piece, decodes.weight, count),
        context=sums(decodes.piece, decodes.context, count),
        adapter=queue.adapter | (sums(decodes.piece, lives.adapter[decodes.request], count) > 0),
        sight=sight,
    )
