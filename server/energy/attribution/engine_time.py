"""An engine's seconds, shared out among its requests by iteration."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from server.energy.attribution.attribution import Floats, Window
from server.energy.attribution.iterations import Iterations, Sight, Track
from server.energy.attribution.pieces import Members, sums
from server.energy.attribution.power import ADAPTER, FIXED, GROWTH, KINDS, LAGS, PREFILL, PROMPT
from server.energy.attribution.prompts import Pace
from server.energy.attribution.step_time import StepTime, columns

__all__ = ["EngineTime", "EngineUseOfTime"]

_NOISE: Final = 0.1
"""Of the expected time: so much longer an iteration may be without a prompt in it."""
_MEMORY: Final = 0.98
"""Of sums, for each window: about a minute."""
_PATIENCE: Final = 60
"""Windows to wait for prompts short enough to tell what a prompt token takes."""
_SIGHTS: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EngineUseOfTime:
    """Seconds of a window, by kind."""

    decode: Floats
    """(KINDS, requests): of those who decoded."""
    prefill: Floats
    """(KINDS, requests): of those who prefilled."""
    total: Floats
    """(KINDS,): the sum of both, and of what nobody could be named for."""
    late: Floats
    """(LAGS, KINDS): of the total, what lay in the last so many seconds of the window."""
    begin: Floats
    end: Floats
    """Of the pieces in which it worked, within the window."""

    @property
    def busy_s(self) -> float:
        return float(self.total[:PROMPT].sum())


_NOBODY: Final = 1e-12
"""A presence of less is a rounding error, by which nothing can be divided."""


class EngineTime:
    """One engine, window after window."""

    def __init__(self) -> None:
        self._track = Track()
        self._step_time = StepTime()
        self._mixed_s = self._mixed_prefill_s = 0.0
        self._pace = Pace()
        self._mean_context = 0.0
        self._windows = 0
        self.sights: deque[Sight] = deque(maxlen=_SIGHTS)

    @property
    def fitted(self) -> bool:
        return self._step_time.terms is not None

    @property
    def settled(self) -> bool:
        """Its seconds are good enough to learn watts from."""
        return self._step_time.settled and (self._pace.token_s > 0.0 or self._windows > _PATIENCE)

    @property
    def marginal_s(self) -> float | None:
        """What a step lasts longer for one more stream, at the context of late; None: not known."""
        terms = self._step_time.terms
        return None if terms is None else float(terms[1] + terms[2] * self._mean_context)

    def read(self, window: Window, place: int) -> EngineUseOfTime:
        """Learn from the window, then share its seconds out."""
        self._windows += 1
        iterations = self._track.read(window, place, self._pace.token_s)
        self._step_time.learn(iterations, alone=not window.engines[place].foreign_millitokens)
        if iterations.sight.arrivals:
            self.sights.append(iterations.sight)
        beyond = iterations.pieces.length - self._step_time.expected(iterations)
        self._pace.learn(iterations.queue, iterations.lives, iterations.pieces, beyond)
        chunks = self._pace.chunks(iterations.queue, iterations.lives, iterations.pieces, beyond, iterations.tokens)
        prefill_s = self._prefill_s(iterations, chunks, beyond)
        self._learn_mix(iterations, prefill_s)
        return self._share(window, iterations, chunks, prefill_s)

    def _prefill_s(self, iterations: Iterations, chunks: Members, beyond: Floats) -> Floats:
        """Of each piece, its whole length."""
        pieces, queue = iterations.pieces, iterations.queue
        length = pieces.length
        excess = np.maximum(0.0, beyond)
        real = queue.first | (excess > _NOISE * (length - excess))
        share = self._mixed_prefill_s / self._mixed_s if self._mixed_s else 0.0
        mixed = np.where(pieces.ended, np.where(real, excess, 0.0), share * length)
        someone = sums(chunks.piece, chunks.weight, len(pieces)) > 0.0
        alone = iterations.tokens == 0.0
        return np.where(someone, np.where(alone, length, mixed), 0.0)

    def _learn_mix(self, iterations: Iterations, prefill_s: Floats) -> None:
        pieces = iterations.pieces
        mixed = pieces.whole & (prefill_s > 0.0) & (iterations.tokens > 0.0)
        self._mixed_s = _MEMORY * self._mixed_s + float(pieces.length[mixed].sum())
        self._mixed_prefill_s = _MEMORY * self._mixed_prefill_s + float(prefill_s[mixed].sum())
        tokens = float(iterations.tokens.sum())
        if tokens:
            self._mean_context = float(iterations.context.sum()) / tokens

    def _share(self, window: Window, iterations: Iterations, chunks: Members, prefill_s: Floats) -> EngineUseOfTime:
        pieces, count = iterations.pieces, len(window.requests)
        inside = _over(pieces.inside, pieces.length)
        there = replace(chunks, present=np.where(prefill_s[chunks.piece] > 0.0, chunks.present, 0.0))
        decode, prefill = np.zeros((KINDS, count)), np.zeros((KINDS, count))
        by_piece = np.zeros((KINDS, len(pieces)))
        by_piece[:PREFILL] = self._share_steps(
            iterations, there, (pieces.length - prefill_s) * inside, (decode, prefill)
        )
        by_piece[PREFILL] = prefill_s * inside
        computed = chunks.weight * self._pace.token_s * inside[chunks.piece]
        by_piece[PROMPT] = sums(chunks.piece, computed, len(pieces))
        each = _over(by_piece[PREFILL], sums(chunks.piece, chunks.weight, len(pieces)))
        prefill[PREFILL] = sums(chunks.request, chunks.weight * each[chunks.piece], count)
        prefill[PROMPT] = sums(chunks.request, computed, count)
        begin = np.maximum(pieces.begin, window.start)
        end = np.maximum(begin, np.minimum(pieces.end, window.end))
        since = window.end - np.array(LAGS)[:, None]
        late = np.maximum(0.0, end - np.maximum(begin, since)) * _over(np.ones(len(pieces)), end - begin)
        return EngineUseOfTime(
            decode=decode, prefill=prefill, total=by_piece.sum(axis=1), late=late @ by_piece.T, begin=begin, end=end
        )

    def _share_steps(
        self, iterations: Iterations, prefilling: Members, steps: Floats, into: tuple[Floats, Floats]
    ) -> Floats:
        """Share decoding seconds out among those who decode and those who prefill; returns each piece's by kind."""
        terms = self._step_time.terms
        terms = np.array([1.0, 0.0, 0.0, 0.0]) if terms is None else terms
        decoding, adapters, pieces = iterations.decoding, iterations.lives.adapter, len(iterations.pieces)
        decode, prefill = into
        scale = _over(steps, columns(iterations) @ terms)
        fixed, adapter = terms[0] * scale, terms[3] * scale * iterations.adapter
        for kind, seconds, uses in ((FIXED, fixed, np.ones_like(adapters)), (ADAPTER, adapter, adapters)):
            mine, also = decoding.present * uses[decoding.request], prefilling.present * uses[prefilling.request]
            each = _over(seconds, sums(decoding.piece, mine, pieces) + sums(prefilling.piece, also, pieces))
            decode[kind] = sums(decoding.request, mine * each[decoding.piece], decode.shape[1])
            prefill[kind] = sums(prefilling.request, also * each[prefilling.piece], decode.shape[1])
        grown = (terms[1] * decoding.weight + terms[2] * decoding.context) * scale[decoding.piece]
        decode[GROWTH] = sums(decoding.request, grown, decode.shape[1])
        by_kind: dict[int, Floats] = {FIXED: fixed, GROWTH: sums(decoding.piece, grown, pieces), ADAPTER: adapter}
        return np.stack([by_kind[kind] for kind in range(PREFILL)])


def _over(amounts: Floats, counts: Floats) -> Floats:
    """Their quotient, 0 where there is nobody."""
    there = counts > _NOBODY
    return np.asarray(np.where(there, amounts / np.where(there, counts, 1.0), 0.0), np.float64)
