"""What a variant's own file says of its quality.

`quality.json` beside the checkpoint; all keys but the first three of a score may be absent:

    {
      "scores": [{
        "metric": "perplexity",          see below
        "dataset": "heldout",
        "value": 26.54,
        "interval": [24.1, 29.3],        95 %, by `interval_method`; of a task score: value ± 1.96 standard errors
        "measured_at": "2026-11-21",
        "path": "offline",               offline: with torch; served: through a running engine; lm-eval: imported
        "reference": "demo",             what it was compared with
        "noise": 0.0,                    the same figure of the reference against itself
        "window": 512, "windows": 41, "tokens": 20951,
        "text_sha256": "…"
      }],
      "weights_sha256": "…",             of the weights that were measured
      "base_weights_sha256": "…",        of the reference's
      "interval_method": "…"
    }

Metrics are of three kinds. `perplexity`: better when lower. Those that compare with the reference, token by token, on
the same text: `perplexity_ratio`, `nll_change_nats`, `kl_nats`, `kl_top20_nats`, `top1_agreement_ratio`, `flips_ratio`,
`right_to_wrong_ratio`, `wrong_to_right_ratio`, `net_flips_ratio`. Every other metric is a task score, better when
higher. Other keys are passed over.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeGuard

from server.errors import CheckpointError

__all__ = ["OFFLINE", "QUALITY_FILE", "Quality", "comparable", "read_qualities"]

QUALITY_FILE: Final = "quality.json"
OFFLINE: Final = "offline"
_PERPLEXITY: Final = "perplexity"
_RELATIVE: Final = re.compile(
    r"perplexity_ratio|nll_change_nats|kl_(top\d+_)?nats|top1_agreement_ratio|"
    r"(flips|net_flips|right_to_wrong|wrong_to_right)_ratio"
)
_MAX_BYTES: Final = 2**20
_LARGEST: Final = 2**53
"""Whole numbers beyond it are no scores, and no floats."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """One measured score of a checkpoint; None is unknown."""

    metric: str
    dataset: str
    value: float
    """Finite; a perplexity is above 0, a task score not below."""
    measured_at: str | None = None
    interval: tuple[float, float] | None = None
    """95 %."""
    reference: str | None = None
    path: str = OFFLINE
    window: int | None = None
    text_sha256: str | None = None

    @property
    def label(self) -> str:
        """The metric and what it was measured on, as it stands on metrics."""
        return f"{self.metric}:{self.dataset}"

    @property
    def relative(self) -> bool:
        """It compares with a reference and says nothing by itself."""
        return _RELATIVE.fullmatch(self.metric) is not None

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
        data = json.loads(path.read_bytes())
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, RecursionError) as exc:
        raise CheckpointError(
            f"{path}: cannot be read ({exc}). Measure the quality again, or remove the file."
        ) from exc
    scores = data.get("scores") if isinstance(data, dict) else None
    if not isinstance(scores, list):
        raise CheckpointError(f'{path}: has no list "scores". Measure the quality again, or remove the file.')
    return tuple(_quality(f"{path}: scores[{number}]", score) for number, score in enumerate(scores))


def comparable(mine: Sequence[Quality], reference: Sequence[Quality]) -> tuple[Quality, Quality] | None:
    """The first score, task scores before perplexity, that both have by the same metric on the same data."""
    theirs = [quality for quality in reference if not quality.relative and quality.value > 0]
    order = sorted(mine, key=lambda quality: quality.metric == _PERPLEXITY)
    pairs = ((quality, other) for quality in order for other in theirs if _same_measurement(quality, other))
    return next(pairs, None)


def _same_measurement(one: Quality, other: Quality) -> bool:
    """What only one of them tells does not part them."""
    same_way = (one.label, one.path) == (other.label, other.path)
    details = ((one.window, other.window), (one.text_sha256, other.text_sha256))
    return same_way and all(None in pair or pair[0] == pair[1] for pair in details)


def _quality(where: str, score: Any) -> Quality:
    fields = score if isinstance(score, dict) else {}
    metric, dataset, value = (fields.get(key) for key in ("metric", "dataset", "value"))
    named = isinstance(metric, str) and isinstance(dataset, str) and metric and dataset
    if not named or not _is_number(value):
        raise CheckpointError(f"{where} needs a metric, a dataset and a number as value.")
    window = fields.get("window")
    quality = Quality(
        metric=str(metric),
        dataset=str(dataset),
        value=float(value),
        measured_at=_text(fields, "measured_at"),
        interval=_interval(where, fields.get("interval")),
        reference=_text(fields, "reference"),
        path=_text(fields, "path") or OFFLINE,
        window=window if isinstance(window, int) else None,
        text_sha256=_text(fields, "text_sha256"),
    )
    _check_range(where, quality)
    return quality


def _check_range(where: str, quality: Quality) -> None:
    value = quality.value
    if not math.isfinite(value) or (quality.metric == _PERPLEXITY and value <= 0):
        raise CheckpointError(f"{where}.value is {value}; a perplexity is a finite number above 0, a score finite.")
    if value < 0 and not quality.relative:
        raise CheckpointError(f"{where}.value is {value}; a task score is a finite number, 0 or above.")


def _interval(where: str, value: Any) -> tuple[float, float] | None:
    if value is None:
        return None
    if isinstance(value, list) and len(value) == 2 and all(_is_number(bound) for bound in value):
        low, high = map(float, value)
        if math.isfinite(low) and math.isfinite(high) and low <= high:
            return low, high
    raise CheckpointError(f"{where}.interval is no pair of finite numbers [low, high]. Measure the quality again.")


def _is_number(value: Any) -> TypeGuard[float]:
    whole = isinstance(value, int) and not isinstance(value, bool) and abs(value) <= _LARGEST
    return whole or isinstance(value, float)


def _text(fields: dict[str, Any], key: str) -> str | None:
    value = fields.get(key)
    return value if isinstance(value, str) else None
