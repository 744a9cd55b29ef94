"""Least squares with coefficients that are not negative."""

from __future__ import annotations

from typing import Final

import numpy as np

from server.energy.attribution.attribution import Flags, Floats

__all__ = ["fit", "robust_fit"]

_RIDGE: Final = 1e-9
"""Of terms of length 1: two that are the same share their weight."""
_ROUNDS: Final = 3
_OUTLIER: Final = 4.0
"""In standard deviations, as the median deviation tells them."""
_MAD_TO_SIGMA: Final = 1.4826
"""Of a normal distribution."""


def fit(rows: Floats, values: Floats) -> Floats:
    """x ≥ 0 with least |rows · x - values|; rows (count, terms), x (terms,).

    Active sets as of Lawson and Hanson, "Solving Least Squares Problems", chapter 23, on the normal equations: there
    are a handful of terms and thousands of rows. Columns are scaled to length 1 before; one of zeros gets 0.
    """
    lengths = np.sqrt((rows * rows).sum(axis=0))
    lengths[lengths == 0.0] = 1.0
    scaled = rows / lengths
    gram, target = scaled.T @ scaled + _RIDGE * np.eye(rows.shape[1]), scaled.T @ values
    solution = np.zeros(rows.shape[1])
    passive = np.zeros(rows.shape[1], np.bool_)
    tolerance = 1e-10 * max(1.0, float(np.abs(target).max(initial=0.0)))
    for _ in range(3 * rows.shape[1]):
        slope = np.where(passive, -np.inf, target - gram @ solution)
        if slope.max(initial=-np.inf) <= tolerance:
            break
        passive[slope.argmax()] = True
        solution = _solve(gram, target, passive, solution)
    return np.asarray(solution / lengths, np.float64)


def robust_fit(
    rows: Floats, values: Floats, prior: Floats | None = None, *, tolerated: float = 0.0
) -> tuple[Floats, Flags]:
    """The fit without outliers, and which rows it kept. `prior` are rows that should give 0, and never leave.

    No error up to `tolerated`, a part of the mean value, makes an outlier: where most rows fit to the last digit, the
    few that tell of something rare would all be some.
    """
    anchors = np.zeros((0, rows.shape[1])) if prior is None else prior
    kept = np.ones(len(values), np.bool_)
    solution = _anchored(rows, values, anchors)
    for _ in range(_ROUNDS):
        errors = np.abs(values - rows @ solution)
        usual = _OUTLIER * _MAD_TO_SIGMA * float(np.median(errors[kept]))
        bound = max(usual, tolerated * float(np.abs(values).mean())) + 1e-12
        inside = errors <= bound
        if inside.sum() < rows.shape[1] + 1 or (inside == kept).all():
            break
        kept = inside
        solution = _anchored(rows[kept], values[kept], anchors)
    return solution, kept


def _anchored(rows: Floats, values: Floats, anchors: Floats) -> Floats:
    return fit(np.concatenate([rows, anchors]), np.concatenate([values, np.zeros(len(anchors))]))


def _solve(gram: Floats, target: Floats, passive: Flags, before: Floats) -> Floats:
    """The best with the passive terms alone, others leaving as they reach 0."""
    solution = before
    while passive.any():
        best = np.zeros_like(solution)
        best[passive] = np.linalg.solve(gram[passive][:, passive], target[passive])
        leaving = passive & (best <= 0.0)
        if not leaving.any():
            return best
        falls = solution[leaving] - best[leaving]
        step = float((solution[leaving] / np.where(falls > 0.0, falls, 1.0)).min())
        solution = solution + min(1.0, step) * (best - solution)
        passive &= ~(leaving & (solution <= 1e-12))
        solution[~passive] = 0.0
        if step <= 0.0:
            passive &= ~leaving
            solution[~passive] = 0.0
    return solution
