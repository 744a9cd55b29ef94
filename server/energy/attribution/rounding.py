"""Splits an integer by weights without losing a unit."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["split"]


def split(total: int, weights: Sequence[int]) -> list[int]:
    """Parts of `total` in proportion to `weights`, with Σ parts = total; each is within 1 of its exact share.

    Largest remainder: parts are rounded down, then the units left go to the largest fractions, the first of equal ones.
    All in integers, so that it is exact at any size. Raises `ValueError` for negative input or no weight at all.
    """
    whole = sum(weights)
    if whole <= 0 or total < 0 or min(weights) < 0:
        raise ValueError("Split needs a total and weights that are not negative, and a weight above 0.")
    parts, remainders = [], []
    for weight in weights:
        part, remainder = divmod(total * weight, whole)
        parts.append(part)
        remainders.append(remainder)
    left = total - sum(parts)
    for index in sorted(range(len(weights)), key=lambda i: -remainders[i])[:left]:
        parts[index] += 1
    return parts
