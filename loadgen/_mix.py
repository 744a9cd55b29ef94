"""Which model each request asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from loadgen._errors import LoadError

__all__ = ["Mix", "parse_mix"]

_STREAM = 0x6D6978
"""Separates the draws of the mix from those of the prompts under one seed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """Model ids with their shares of the requests."""

    models: tuple[str, ...]
    weights: tuple[float, ...]

    def pick(self, index: int, *, seed: int) -> str:
        """The model of request `index`; the same for the same seed."""
        if len(self.models) == 1:
            return self.models[0]
        bounds = np.cumsum(self.weights)
        drawn = np.random.default_rng((seed, _STREAM, index)).random() * bounds[-1]
        return self.models[int(np.searchsorted(bounds, drawn, side="right"))]


def parse_mix(text: str, known: Sequence[str]) -> Mix:
    """`demo:bf16=3,demo:int8` gives weights 3 and 1; an empty text gives every known id the same.

    `known` is what the server lists; nothing is refused if it lists nothing. Raises `LoadError`.
    """
    if not text.strip():
        if not known:
            raise LoadError("The server lists no model that chats; name one with --models ID.")
        return Mix(models=tuple(known), weights=(1.0,) * len(known))
    models, weights = zip(*(_entry(part) for part in text.split(",") if part.strip()), strict=True)
    twins = sorted({model for model in models if models.count(model) > 1})
    if twins:
        raise LoadError(f"--models names {twins[0]!r} twice; give it one weight.")
    unknown = [model for model in models if known and model not in known]
    if unknown:
        raise LoadError(f"The server does not list the model {unknown[0]!r}; it lists {', '.join(known)}.")
    return Mix(models=models, weights=weights)


def _entry(part: str) -> tuple[str, float]:
    # Ids may hold colons and slashes; an equals sign they do not.
    model, equals, weight = part.strip().partition("=")
    try:
        share = float(weight) if equals else 1.0
    except ValueError:
        share = -1.0
    if not model or not 0 < share < float("inf"):
        raise LoadError(f"--models: {part.strip()!r} is not ID or ID=WEIGHT with a weight above 0.")
    return model, share
