"""Sums of windows → scores as they stand in quality.json."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from quant.quality.bootstrap import Bootstrap
from quant.quality.counts import FIELDS, figures

__all__ = ["Measured", "scores"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What was measured, and how."""

    dataset: str
    text_sha256: str
    path: str
    """`offline` or `served`."""
    reference: str
    window: int
    top_k: int
    measured_at: str
    """A date."""


def scores(
    rows: Iterable[tuple[list[float], list[float]]], measured: Measured, bootstrap: Bootstrap
) -> list[dict[str, Any]]:
    """Of (variant's, noise's) sums a window: every figure that was measured, with its interval if there can be one."""
    both = np.array(list(rows), dtype=np.float64)  # (windows, 2, fields)
    sums, noise = both[:, 0], both[:, 1]
    about = {
        "measured_at": measured.measured_at,
        "path": measured.path,
        "reference": measured.reference,
        "window": measured.window,
        "windows": len(sums),
        "tokens": int(sums[:, FIELDS.index("tokens")].sum()),
        "text_sha256": measured.text_sha256,
    }
    found = []
    for figure in figures(measured.top_k):
        value = float(figure.of(sums.sum(axis=0)))
        if np.isnan(value):  # this path cannot measure it
            continue
        score: dict[str, Any] = {"metric": figure.metric, "dataset": measured.dataset, "value": _short(value)}
        interval = bootstrap.interval(sums, figure.of)
        if interval is not None:
            score["interval"] = [_short(bound) for bound in interval]
        if figure.metric != "perplexity":  # the others compare: with itself, the reference should lose nothing
            score["noise"] = _short(float(figure.of(noise.sum(axis=0))))
        found.append(score | about)
    return found


def _short(value: float) -> float:
    """Six digits: more than any of them means."""
    return float(f"{value:.6g}")
