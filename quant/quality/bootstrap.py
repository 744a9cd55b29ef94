"""The interval of a figure, by drawing a text's windows again (BCa bootstrap).

Tokens of one window depend on one another, windows of a text hardly: so whole windows are drawn, with replacement, as
many as there are. From B figures θ* of such draws the bias-corrected and accelerated interval takes the quantiles

    α₁, α₂ = Φ(z₀ + (z₀ ± z) / (1 - a·(z₀ ± z))),   z = Φ⁻¹(½ + confidence/2)
    z₀ = Φ⁻¹(share of θ* below θ)                   bias; ties count half
    a  = Σ d³ / (6·(Σ d²)^1.5), d = mean - θ without window i     acceleration, by the jackknife

Source: Efron, "Better bootstrap confidence intervals", JASA 82 (1987), sections 3 and 6; whole blocks: Künsch, Annals
of Statistics 17 (1989).

The interval says what another text **of this kind** would give; it knows nothing of other kinds of text.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

import numpy as np

from quant.quality.counts import Floats, Sums

__all__ = ["LEAST_WINDOWS", "Bootstrap"]

LEAST_WINDOWS: Final = 8
"""Fewer give no interval: eight values are few to draw a 2.5 % quantile from, and less would only look like one."""
_AT_ONCE: Final = 1024
_NORMAL: Final = NormalDist()


@dataclass(frozen=True, slots=True, kw_only=True)
class Bootstrap:
    """How intervals are made; the same value and sums give the same interval."""

    resamples: int = 10_000
    seed: int = 0
    confidence: float = 0.95

    def describe(self) -> str:
        """For whoever reads the file."""
        return (
            f"{self.confidence:.0%} BCa bootstrap over windows (Efron 1987), "
            f"{self.resamples} resamples, seed {self.seed}"
        )

    def interval(self, sums: Sums, figure: Callable[[Sums], Floats]) -> tuple[float, float] | None:
        """Of `figure` over (windows, fields); None for fewer than `LEAST_WINDOWS`. Cost: resamples x windows."""
        if len(sums) < LEAST_WINDOWS:
            return None
        found = float(figure(sums.sum(axis=0)))
        drawn = self._drawn(sums, figure)
        if drawn.min() == drawn.max():  # no window differs in it: a share of 0, for example
            return float(drawn[0]), float(drawn[0])
        quantiles = np.quantile(drawn, self._levels(drawn, found, _acceleration(sums, figure)))
        return float(quantiles[0]), float(quantiles[1])

    def _drawn(self, sums: Sums, figure: Callable[[Sums], Floats]) -> Floats:
        """The figure of every resample (resamples,)."""
        random = np.random.default_rng(self.seed)
        windows = len(sums)
        parts = []
        for start in range(0, self.resamples, _AT_ONCE):
            size = min(_AT_ONCE, self.resamples - start)
            times = random.multinomial(windows, np.full(windows, 1 / windows), size=size)  # (size, windows)
            parts.append(figure(times @ sums))
        return np.concatenate(parts)

    def _levels(self, drawn: Floats, found: float, acceleration: float) -> list[float]:
        below = float(np.mean(drawn < found) + np.mean(drawn == found) / 2)
        edge = 1 / (2 * self.resamples)  # all draws on one side: the bias is large, and unknown beyond this
        bias = _NORMAL.inv_cdf(min(max(below, edge), 1 - edge))
        z = _NORMAL.inv_cdf(0.5 + self.confidence / 2)
        shifted = (bias - z, bias + z)
        return [_NORMAL.cdf(bias + s / (1 - acceleration * s)) for s in shifted]


def _acceleration(sums: Sums, figure: Callable[[Sums], Floats]) -> float:
    without = figure(sums.sum(axis=0) - sums)  # (windows,)
    distances = without.mean() - without
    spread = float((distances**2).sum())
    # |a| of a mean is at most 1/6 (one window holds everything), far from where 1 - a·s could turn negative.
    return float((distances**3).sum()) / (6 * spread**1.5) if spread > 0 else 0.0
