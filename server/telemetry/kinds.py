"""Groups the records of a batch by everything that they are counted by."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from itertools import count
from operator import attrgetter
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from server.telemetry.labels import NONE
from server.telemetry.observations import Columns

__all__ = ["KIND", "Places", "RecordKind", "Sums"]

Labels = tuple[str, ...]


class Places:
    """Numbers the distinct ones among many, in the order in which they come."""

    def __init__(self, values: Iterable[tuple[Any, ...]]) -> None:
        numbers: defaultdict[tuple[Any, ...], int] = defaultdict(count().__next__)
        self.of_each: npt.NDArray[np.int64] = np.array([numbers[value] for value in values], np.int64)
        self.distinct = list(numbers)


class RecordKind(NamedTuple):
    """What records are grouped by; in the order of `KIND`."""

    engine: str | None
    model: str | None
    variant: str | None
    precision: str | None
    adapter: str
    tenant: str
    endpoint: str
    outcome: str
    cancelled_when: str | None

    @property
    def labels(self) -> Labels:
        return (
            self.engine or NONE,
            self.model or NONE,
            self.variant or NONE,
            self.precision or NONE,
            self.adapter,
        )


KIND: Final = attrgetter(
    "engine",
    "model",
    "variant",
    "precision",
    "adapter",
    "tenant",
    "endpoint",
    "outcome._value_",  # a plain string: an enumeration's hash is computed in Python
    "cancelled_when",
)
"""A record's kind, as a plain tuple."""


class Sums:
    """Of each kind of records, in integers: how many, and their tokens."""

    def __init__(self, columns: Columns, kind_of: npt.NDArray[np.int64], kinds: int) -> None:
        def count_of(which: npt.NDArray[np.bool_]) -> list[int]:
            counts: list[int] = np.bincount(kind_of[which], minlength=kinds).tolist()
            return counts

        def sum_of(which: npt.NDArray[np.bool_], amounts: npt.NDArray[np.float64]) -> list[int]:
            result = np.zeros(kinds, np.int64)
            np.add.at(result, kind_of[which], amounts[which].astype(np.int64))
            sums: list[int] = result.tolist()
            return sums

        self.records: list[int] = np.bincount(kind_of, minlength=kinds).tolist()
        amounts = {
            "prompt": columns.prompt_tokens,
            "cached": columns.cached_tokens,
            "output": columns.output_tokens,
        }
        self.tokens = {
            what: (count_of(~np.isnan(amount)), sum_of(~np.isnan(amount), amount)) for what, amount in amounts.items()
        }
        usage, chunks = ~np.isnan(columns.output_tokens), columns.token_chunks > 0
        self.with_usage = self.tokens["output"][0]
        self.chunks = sum_of(usage, columns.token_chunks)
        self.chunks_only = count_of(~usage & chunks)
        """Token chunks came, and no usage."""
        self.silent = count_of(~usage & ~chunks)
        """Neither came."""
