"""What a user may choose of a training."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

from quant.errors import SchemeError

__all__ = ["Settings"]

_AT_LEAST_ONE: Final = ("steps", "rows", "rank", "alpha", "length", "layers")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Equal settings on an equal machine give equal weights."""

    steps: int = 100
    rows: int = 8
    """Examples of a step."""
    rate: float | None = None
    """Peak learning rate; None: the method's own."""
    rank: int = 8
    alpha: int = 16
    layers: int = 1
    """`freeze`: how many of the last layers are trained."""
    length: int = 512
    """Tokens of an example at most; the rest is cut off."""
    held_out: float = 0.1
    """The share of examples that are not trained on, but judged before and after."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name in _AT_LEAST_ONE:
            if getattr(self, name) < 1:
                raise SchemeError(f"--{name} {getattr(self, name)} is too small. Give a whole number of at least 1.")
        if self.rate is not None and not 0 < self.rate < 1:
            raise SchemeError(f"--rate {self.rate} is no learning rate. Give a number between 0 and 1.")
        if not 0 <= self.held_out < 1:
            raise SchemeError(f"--held-out {self.held_out} is no share. Give a number of at least 0 and below 1.")

    @classmethod
    def names(cls) -> tuple[str, ...]:
        return tuple(field.name for field in fields(cls))
