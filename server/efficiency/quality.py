"""What a variant's own file says of its quality.

`quality.json` beside the checkpoint:

    {"scores": [{"metric": "perplexity", "dataset": "heldout", "value": 9.87, "measured_at": "2026-11-21"}]}

`perplexity` is better when lower; every other metric is a task score, better when higher. Other keys are passed over.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from server.errors import CheckpointError

__all__ = ["QUALITY_FILE", "Quality", "comparable", "read_qualities"]

QUALITY_FILE: Final = "quality.json"
_PERPLEXITY: Final = "perplexity"
_MAX_BYTES: Final = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """One measured score of a checkpoint."""

    metric: str
    dataset: str
    value: float
    """Positive."""
    measured_at: str | None = None

    @property
    def label(self) -> str:
        """The metric and what it was measured on, as it stands on metrics."""
        return f"{self.metric}:{self.dataset}"

    @property
    def performance(self) -> float:
        """`perf` of the compression rate, better when higher: 1 / perplexity, or the task's score."""
        return 1 / self.value if self.metric == _PERPLEXITY else self.value


def read_qualities(checkpoint: Path) -> tuple[Quality, ...]:
    """The scores beside a checkpoint; none where there is no file. Raises `CheckpointError`, which says where."""
    path = checkpoint / QUALITY_FILE
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise CheckpointError(f"{path}: is larger than {_MAX_BYTES} bytes, so it is no list of scores.")
        data = msgspec.json.decode(path.read_bytes())
    except FileNotFoundError:
        return ()
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise CheckpointError(
            f"{path}: cannot be read ({exc}). Measure the quality again, or remove the file."
        ) from exc
    scores = data.get("scores") if isinstance(data, dict) else None
    if not isinstance(scores, list):
        raise CheckpointError(f'{path}: has no list "scores". Measure the quality again, or remove the file.')
    return tuple(_quality(path, number, score) for number, score in enumerate(scores))


def comparable(mine: Sequence[Quality], reference: Sequence[Quality]) -> tuple[Quality, Quality] | None:
    """The first score, task scores before perplexity, that both have by the same metric on the same data."""
    theirs = {quality.label: quality for quality in reference}
    order = sorted(mine, key=lambda quality: quality.metric == _PERPLEXITY)
    return next(((quality, theirs[quality.label]) for quality in order if quality.label in theirs), None)


def _quality(path: Path, number: int, score: Any) -> Quality:
    fields = score if isinstance(score, dict) else {}
    metric, dataset, value, at = (fields.get(key) for key in ("metric", "dataset", "value", "measured_at"))
    named = isinstance(metric, str) and isinstance(dataset, str) and metric and dataset
    if not named or isinstance(value, bool) or not isinstance(value, int | float):
        raise CheckpointError(f"{path}: scores[{number}] needs a metric, a dataset and a number as value.")
    if not math.isfinite(value) or value <= 0:
        raise CheckpointError(f"{path}: scores[{number}].value is {value}; a score is a finite number above 0.")
    measured_at = at if isinstance(at, str) else None
    return Quality(metric=str(metric), dataset=str(dataset), value=float(value), measured_at=measured_at)
