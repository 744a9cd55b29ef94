"""Student's t distribution, by the incomplete beta function."""

from __future__ import annotations

import math
from functools import cache
from statistics import NormalDist
from typing import Final

__all__ = ["t_cdf", "t_quantile"]

_EPSILON: Final = 1e-14
_TINY: Final = 1e-300
_MAX_TERMS: Final = 500
"""The continued fraction needs about sqrt(max(a, b)) terms: enough up to some ten thousand degrees of freedom."""
_STEPS: Final = 200


def t_cdf(t: float, degrees: float) -> float:
    """P(T ≤ t) = 1 - I_x(n/2, 1/2)/2 with x = n/(n + t²), for t ≥ 0.

    Source: Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.1 and 26.5.
    """
    if math.isinf(t):
        return 1.0 if t > 0 else 0.0
    tail = 0.5 * _incomplete_beta(degrees / 2, 0.5, degrees / (degrees + t * t))
    return 1.0 - tail if t >= 0 else tail


@cache
def t_quantile(probability: float, degrees: float) -> float:
    """The t with P(T ≤ t) = `probability`.

    Newton's method from the normal quantile: that lies below t, and the distribution is concave above 0, so that every
    step goes up and none too far.
    """
    if not 0 < probability < 1:
        raise ValueError(f"a quantile needs a probability between 0 and 1, not {probability}")
    if probability < 0.5:
        return -t_quantile(1 - probability, degrees)
    t = NormalDist().inv_cdf(probability)
    for _ in range(_STEPS):
        step = (probability - t_cdf(t, degrees)) / _density(t, degrees)
        t += step
        if abs(step) <= _EPSILON * max(1.0, t):
            break
    return t


def _density(t: float, degrees: float) -> float:
    front = math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2) - math.log(degrees * math.pi) / 2
    return math.exp(front - (degrees + 1) / 2 * math.log1p(t * t / degrees))


def _incomplete_beta(a: float, b: float, x: float) -> float:
    """I_x(a, b), regularised. The fraction is fast below (a + 1)/(a + b + 2); symmetry gives the other side."""
    if x <= 0 or x >= 1:
        return 0.0 if x <= 0 else 1.0
    if x > (a + 1) / (a + b + 2):
        return 1.0 - _incomplete_beta(b, a, 1 - x)
    front = math.exp(
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x) - math.log(a)
    )
    return front / _continued_fraction(a, b, x)


def _continued_fraction(a: float, b: float, x: float) -> float:
    """1 + d₁/(1 + d₂/(1 + …)) by Lentz's method; d as in the DLMF, 8.17.22."""
    value, c, d = 1.0, 1.0, 0.0
    for term in range(1, _MAX_TERMS):
        m = term // 2
        if term % 2:
            factor = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            factor = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        d = 1 / _not_zero(1 + factor * d)
        c = _not_zero(1 + factor / c)
        value *= c * d
        if abs(c * d - 1) < _EPSILON:
            break
    return value


def _not_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY
