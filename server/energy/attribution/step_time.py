"""How long a decoding step lasts: learned from iterations without prompts."""

from __future__ import annotations

from typing import Final

import numpy as np

from server.energy.attribution.attribution import Flags, Floats
from server.energy.attribution.history import History
from server.energy.attribution.iterations import Iterations
from server.energy.attribution.nnls import robust_fit

__all__ = ["TERMS", "StepTime"]

TERMS: Final = 4
"""τ₀, τ₁ for each token, τ₂ for each token of context, τ_L for any adapter."""
_SAMPLES: Final = 2048
"""Of iterations with an adapter, and as many without: where nearly all have one, the others tell what it costs."""
_MOST_OF_A_WINDOW: Final = 256
"""So that a fast engine's history reaches back more than a few windows."""
_LEAST_SAMPLES: Final = 40
_SETTLED: Final = 200
_SCEPTICISM: Final = 0.3
"""Where no iteration was without an adapter, its term is 0: as if so many samples said so."""
_AS_USUAL: Final = 1.1
"""Of the expected time: an iteration in which somebody merely waited was not longer."""


class StepTime:
    """t̂ = τ₀ + τ₁ · n + τ₂ · Σ context + τ_L · [any adapter], none of them negative."""

    def __init__(self) -> None:
        self._histories = (History(_SAMPLES, TERMS + 1), History(_SAMPLES, TERMS + 1))
        self.terms: Floats | None = None
        """None: too little was seen."""

    def learn(self, iterations: Iterations, *, alone: bool) -> None:
        """`alone`: nobody else was at the engine that nobody saw."""
        if not alone:
            return
        pieces = iterations.pieces
        rows = columns(iterations)
        plain = ~iterations.queue.waiting
        if self.terms is not None:
            plain |= ~iterations.queue.first & (pieces.length <= _AS_USUAL * (rows @ self.terms))
        usable = (pieces.whole & plain & (iterations.tokens > 0)).nonzero()[0]
        if not len(usable):
            return
        # Evenly over the window.
        even = np.linspace(0, len(usable) - 1, min(len(usable), _MOST_OF_A_WINDOW))
        usable = usable[even.astype(np.int64)]
        samples = np.column_stack([rows[usable], pieces.length[usable]])
        with_adapter = iterations.adapter[usable]
        for history, chosen in zip(self._histories, (~with_adapter, with_adapter), strict=True):
            history.add(samples[chosen])
        due = [history.due() for history in self._histories]
        if self.samples >= _LEAST_SAMPLES and any(due):
            self._fit()

    @property
    def samples(self) -> int:
        return sum(len(history) for history in self._histories)

    @property
    def settled(self) -> bool:
        """Windows may be judged by it."""
        return self.terms is not None and self.samples >= _SETTLED

    def _fit(self) -> None:
        samples = np.concatenate([history.rows for history in self._histories])
        doubt = np.array([[0.0, 0.0, 0.0, _SCEPTICISM]])
        self.terms, _ = robust_fit(samples[:, :TERMS], samples[:, TERMS], doubt)

    def expected(self, iterations: Iterations) -> Floats:
        """Seconds of each piece as if nobody had been prefilling; ∞: not known."""
        if self.terms is None:
            return np.full(len(iterations.pieces), np.inf)
        return np.asarray(columns(iterations) @ self.terms, np.float64)


def columns(iterations: Iterations) -> Floats:
    """(pieces, TERMS)"""
    used: Flags = iterations.adapter
    return np.column_stack([np.ones(len(used)), iterations.tokens, iterations.context, used])
