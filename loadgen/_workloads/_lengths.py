"""How long prompts and answers are: drawn, scaled to a context, compared with what came."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol, Self

import numpy as np

from loadgen._workloads._draws import generator

__all__ = ["Drawing", "Fitted", "Scale", "Tokens", "length_error"]

_STREAM: Final = 0x6C656E
"""Separates the draws of lengths from those of texts, mix and arrivals under one seed."""
_MOST_ANSWER: Final = 0.5
"""Of the room, where prompt and answer do not fit both."""


class Tokens(NamedTuple):
    """Of one request."""

    prompt: float
    output: float


class Drawing(Protocol):
    """Where a workload's lengths come from, in tokens, as they were in the world."""

    @property
    def extent(self) -> Tokens:
        """A long prompt and a long answer that shall still fit: they decide the scale."""

    def draw(self, rng: np.random.Generator) -> Tokens:
        """One request's; at least 0."""


@dataclass(frozen=True, slots=True)
class Scale:
    """One factor for prompts and answers, such that a long pair fits into a context; what is longer is cut there."""

    factor: float
    room: int | None
    """Tokens that prompt and answer may take together."""

    @classmethod
    def of(cls, extent: Tokens, room: int | None) -> Self:
        """Never above 1: short lengths are not stretched."""
        return cls(1.0 if room is None else min(1.0, room / max(1.0, extent.prompt + extent.output)), room)

    def fit(self, prompt: float, output: float) -> tuple[int, int]:
        """Whole tokens, at least one each."""
        wanted = max(1, round(prompt * self.factor)), max(1, round(output * self.factor))
        if self.room is None or sum(wanted) <= self.room:
            return wanted
        answer = min(wanted[1], max(1, int(self.room * _MOST_ANSWER)))
        return max(1, min(wanted[0], self.room - answer)), answer


class Fitted:
    """A drawing, scaled: the shape stays, up to its extent."""

    def __init__(self, drawing: Drawing, *, seed: int, room: int | None) -> None:
        self.scale = Scale.of(drawing.extent, room)
        self._drawing, self._seed = drawing, seed

    def of(self, index: int) -> tuple[int, int]:
        """(prompt, output) tokens of request `index`; the same for every salt and model."""
        drawn = self._drawing.draw(generator(self._seed, _STREAM, index))
        return self.scale.fit(drawn.prompt, drawn.output)


def length_error(pairs: Iterable[tuple[int | None, int | None]]) -> dict[str, Any]:
    """How far prompts were from their wanted lengths; pairs of (wanted, counted by the server) tokens.

    `ratio` is of the sums; `median_error` and `p95_error` are of |counted - wanted|/wanted. None: nothing to compare.
    """
    known = [(wanted, counted) for wanted, counted in pairs if wanted and counted]
    if not known:
        return {"requests": 0, "ratio": None, "median_error": None, "p95_error": None}
    wanted, counted = np.array(known, dtype=np.float64).T
    errors = np.abs(counted - wanted) / wanted
    return {
        "requests": len(known),
        "ratio": round(float(counted.sum() / wanted.sum()), 4),
        "median_error": round(float(np.median(errors)), 4),
        "p95_error": round(float(np.quantile(errors, 0.95)), 4),
    }
