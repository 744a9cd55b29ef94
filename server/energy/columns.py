"""The columns of the work book."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

__all__ = ["NEW", "UNKNOWN", "WORK", "Flags", "Floats", "Integers", "Works"]

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Works = npt.NDArray[Any]
"""Rows of `WORK`."""

UNKNOWN: Final = -1
"""In columns of integers; in columns of times it is NaN."""

WORK: Final = np.dtype(
    [
        ("key", np.int64),  # ascends
        ("payer", np.int64),
        ("worker", np.int64),
        ("seq", np.int64),  # its record's batch, and the place there
        ("place", np.int64),
        ("sent_at", np.float64),
        ("last_at", np.float64),  # the last that was heard of it
        ("first_token_at", np.float64),
        ("done_at", np.float64),  # when the engine was done with it; NaN: it runs
        ("prompt_tokens", np.int64),
        ("computed_prompt_tokens", np.int64),
        ("output_tokens", np.int64),
        ("token_chunks", np.int64),  # by its record
        ("chunks_gone", np.int64),  # those whose times are forgotten
        ("prefill", np.int64),  # µJ of the windows closed so far
        ("decode", np.int64),
        ("method", np.int64),  # of its windows, the one of least confidence
        ("confidence", np.float64),
        ("scopes", np.int64),  # a bit for each
        ("paid", np.bool_),  # False: none of its windows is closed, so its energy is not known
        ("recorded", np.bool_),
        ("completed", np.bool_),
        ("complete", np.bool_),  # False: some of its time is in windows that nobody can account for any more
    ]
)


def _new_work() -> Works:
    new = np.zeros(1, WORK)
    for name, (kind, *_) in (WORK.fields or {}).items():
        if kind == np.float64:
            new[name] = np.nan
    for name in ("seq", "place", "prompt_tokens", "computed_prompt_tokens", "output_tokens"):
        new[name] = UNKNOWN
    new["confidence"] = np.inf
    return new


NEW: Final = _new_work()
"""A row of which nothing is known."""
