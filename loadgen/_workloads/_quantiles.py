"""Lengths by a table of quantiles, and pairs of lengths that belong together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from loadgen._workloads._lengths import Tokens

__all__ = ["Independent", "Mode", "ModeMixture", "Quantiles"]

_EXTENT: Final = 0.99
"""Up to this quantile of prompts and of answers the shape survives a short context."""
_ROUNDS: Final = 500
"""Of proportional fitting; it converges to 1e-12 within fewer."""


class Quantiles:
    """A distribution given by quantiles, straight between them; sampled by its inverse CDF."""

    def __init__(self, table: Mapping[float, float]) -> None:
        """`table`: percent → tokens, both ascending, from 0 to 100 %."""
        self._shares = np.array(sorted(table)) / 100
        self._tokens = np.array([table[percent] for percent in sorted(table)], dtype=np.float64)

    def at(self, share: float) -> float:
        """The length that `share` of all do not exceed."""
        return float(np.interp(share, self._shares, self._tokens))

    def share(self, tokens: float) -> float:
        """The other way round. Where a quantile repeats, the last share with it."""
        ascending = self._tokens + np.arange(len(self._tokens)) * 1e-9
        return float(np.interp(tokens, ascending, self._shares))


@dataclass(frozen=True, slots=True)
class Independent:
    """Prompts and answers that know nothing of one another."""

    prompt: Quantiles
    output: Quantiles

    @property
    def extent(self) -> Tokens:
        return Tokens(self.prompt.at(_EXTENT), self.output.at(_EXTENT))

    def draw(self, rng: np.random.Generator) -> Tokens:
        first, second = rng.random(2)
        return Tokens(self.prompt.at(first), self.output.at(second))


@dataclass(frozen=True, slots=True)
class Mode:
    """A kind of request within a mixture."""

    prompt_up_to: float
    """Its longest prompt; its shortest is the longest of the mode before."""
    output_median: float


class ModeMixture:
    """Pairs by mode: the prompt decides the mode, the mode the answer's distribution.

    Each mode has its median answer, and all modes together have exactly the quantiles of `output`. Between, the table
    of modes by answers is the one with the most entropy, found by proportional fitting (Deming and Stephan, 1940).
    """

    def __init__(self, prompt: Quantiles, output: Quantiles, modes: Sequence[Mode]) -> None:
        self._prompt, self._output = prompt, output
        self._bounds = np.array([mode.prompt_up_to for mode in modes])
        medians = [output.share(mode.output_median) for mode in modes]
        self._edges = np.unique([0.0, *medians, 1.0])
        """(bins + 1,), shares of the answers: bins between the modes' medians."""
        weights = np.diff([0.0, *(prompt.share(mode.prompt_up_to) for mode in modes)])
        table = _fitted(weights / weights.sum(), np.array(medians), self._edges)
        self._within = np.cumsum(table / table.sum(axis=1, keepdims=True), axis=1)
        """(modes, bins): cumulated shares of a mode's answers."""

    @property
    def extent(self) -> Tokens:
        return Tokens(self._prompt.at(_EXTENT), self._output.at(_EXTENT))

    def draw(self, rng: np.random.Generator) -> Tokens:
        of_prompt, of_bin, within_bin = rng.random(3)
        prompt = self._prompt.at(of_prompt)
        mode = min(int(np.searchsorted(self._bounds, prompt)), len(self._bounds) - 1)
        place = min(int(np.searchsorted(self._within[mode], of_bin, side="right")), len(self._edges) - 2)
        low, high = self._edges[place], self._edges[place + 1]
        return Tokens(prompt, self._output.at(low + within_bin * (high - low)))


def _fitted(weights: _Floats, medians: _Floats, edges: _Floats) -> _Floats:
    """(modes, bins): rows sum to `weights`, columns to the bins' widths, half of each row lies below its median."""
    widths = np.diff(edges)
    below = edges[1:][None, :] <= medians[:, None] + 1e-12
    table = weights[:, None] * widths[None, :]
    for _ in range(_ROUNDS):
        for side in (below, ~below):
            mass = np.where(side, table, 0.0).sum(axis=1, keepdims=True)
            table = np.where(side, table * (weights[:, None] / 2 / mass), table)
        table *= widths / table.sum(axis=0)
    return table


_Floats = npt.NDArray[np.float64]
