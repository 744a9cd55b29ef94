"""Histograms of many label sets in one integer array."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

__all__ = ["Exemplar", "HistogramRow", "Histograms", "quantile"]

Labels = tuple[str, ...]
Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]

_STEPS = 8
"""Inner buckets to an exported one: a quantile read from here is within a few percent."""


@dataclass(frozen=True, slots=True)
class Exemplar:
    """One observed value, and the request that it came from."""

    request_id: str
    value: float


@dataclass(frozen=True, slots=True)
class HistogramRow:
    """A copy of one label set's state; `+` merges two."""

    counts: Counts
    """(inner buckets + 1,): the last one holds what exceeds the last bound."""
    total: float
    exemplars: dict[int, Exemplar]
    """By exported bucket."""

    @property
    def buckets(self) -> list[int]:
        """Observations in each exported bucket, not cumulated; the last is +Inf's."""
        inner = self.counts[:-1].reshape(-1, _STEPS).sum(axis=1)
        return [*inner.tolist(), int(self.counts[-1])]

    def __add__(self, other: HistogramRow) -> HistogramRow:
        return HistogramRow(self.counts + other.counts, self.total + other.total, {**other.exemplars, **self.exemplars})


class Histograms:
    """One metric's histograms, all with the same exported upper `bounds`. Observing costs a few numpy calls a batch."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.edges = _edges(self.bounds)
        self._index: dict[Labels, int] = {}
        self._counts: Counts = np.zeros((8, len(self.edges) + 1), np.int64)
        self._totals: Floats = np.zeros(8, np.float64)
        self._exemplars: dict[int, dict[int, Exemplar]] = {}

    def observe(
        self, labels: Sequence[Labels], which: Places, values: Floats, ids: Sequence[str] | None = None
    ) -> None:
        """Count `values[i]` under `labels[which[i]]`; with `ids`, a bucket's last value becomes its exemplar."""
        row_of = np.zeros(len(labels), np.int64)
        for place in np.bincount(which).nonzero()[0].tolist():  # labels without a value get no row
            row_of[place] = self._row(labels[place])
        rows, values = row_of[which], np.maximum(values, 0.0)
        cells = rows * self._counts.shape[1] + np.searchsorted(self.edges, values, side="left")
        np.add.at(self._counts.reshape(-1), cells, 1)
        np.add.at(self._totals, rows, values)
        if ids is not None:
            self._keep_exemplars(cells, values, ids)

    def rows(self) -> dict[Labels, HistogramRow]:
        """A copy of everything, safe to read in another thread."""
        counts, totals = self._counts.copy(), self._totals.tolist()
        return {
            labels: HistogramRow(counts[row], totals[row], dict(self._exemplars.get(row, ())))
            for labels, row in self._index.items()
        }

    def merge(self, source: Labels, target: Labels) -> None:
        """Add the row of `source` to that of `target`, and forget `source`."""
        if source not in self._index:
            return
        to, row = self._row(target), self._index[source]
        self._counts[to] += self._counts[row]
        self._totals[to] += self._totals[row]
        self._exemplars.setdefault(to, {}).update(self._exemplars.pop(row, {}))
        last_labels, last_row = max(self._index.items(), key=lambda item: item[1])
        if last_row != row:  # the last row moves into the gap: rows stay dense
            self._counts[row], self._totals[row] = self._counts[last_row], self._totals[last_row]
            self._exemplars[row] = self._exemplars.pop(last_row, {})
            self._index[last_labels] = row
        self._counts[last_row], self._totals[last_row] = 0, 0.0
        del self._index[source]

    def __contains__(self, labels: Labels) -> bool:
        return labels in self._index

    def _keep_exemplars(self, cells: Places, values: Floats, ids: Sequence[str]) -> None:
        rows, inner = np.divmod(cells, self._counts.shape[1])
        buckets = (rows * (len(self.bounds) + 1) + inner // _STEPS).tolist()
        for bucket, index in dict(zip(buckets, range(len(ids)), strict=True)).items():  # the last of each
            row, place = divmod(bucket, len(self.bounds) + 1)
            self._exemplars.setdefault(row, {})[place] = Exemplar(ids[index], float(values[index]))

    def _row(self, labels: Labels) -> int:
        row = self._index.get(labels)
        if row is None:
            row = self._index[labels] = len(self._index)
            if row == len(self._counts):
                self._counts = np.concatenate([self._counts, np.zeros_like(self._counts)])
                self._totals = np.concatenate([self._totals, np.zeros_like(self._totals)])
        return row


def quantile(edges: Floats, counts: Counts, q: float) -> float | None:
    """The value that a share `q` of the observations does not exceed, interpolated in its inner bucket.

    None without observations; the last edge where the truth lies beyond it.
    """
    seen = counts.cumsum()
    if seen[-1] == 0:
        return None
    rank = q * float(seen[-1])
    bucket = int(np.searchsorted(seen, rank, side="left"))
    if bucket >= len(edges):
        return float(edges[-1])
    low = float(edges[bucket - 1]) if bucket else 0.0
    below = float(seen[bucket - 1]) if bucket else 0.0
    share = (rank - below) / float(counts[bucket]) if counts[bucket] else 1.0
    return low + (float(edges[bucket]) - low) * share


def _edges(bounds: Sequence[float]) -> Floats:
    """Upper edges of the inner buckets, `_STEPS` to a bound: geometric between bounds, linear from 0 to the first."""
    first = np.linspace(0.0, bounds[0], _STEPS + 1)[1:]
    rest = [np.geomspace(low, high, _STEPS + 1)[1:] for low, high in pairwise(bounds)]
    edges = np.concatenate([first, *rest])
    edges[_STEPS - 1 :: _STEPS] = bounds  # exactly: a value on a bound belongs to it
    return edges
