"""Task scores from a results file of lm-evaluation-harness.

Its layout: {"results": {TASK: {"acc,none": 0.61, "acc_stderr,none": 0.03, "alias": …}}, "higher_is_better": {TASK:
{"acc": true}}}; the part after the comma names the filter. Its standard errors are those of a mean over questions, so
value ± 1.96 of them is a 95 % interval (normal approximation), cut at 0 and, for shares, at 1.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeGuard

from quant.errors import SourceError

__all__ = ["task_scores"]

_Z: Final = 1.959964  # Φ⁻¹(0.975)
_PLAIN: Final = "none"  # the filter that does nothing


def task_scores(path: Path, measured_at: str) -> list[dict[str, Any]]:
    """Every score that is better when higher, as it stands in quality.json.

    Raises `SourceError` for a file that is none of the harness, or without such a score.
    """
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as exc:
        raise SourceError(f"{path} cannot be read as JSON: {exc}. Give the results_….json that lm_eval wrote.") from exc
    results = content.get("results") if isinstance(content, dict) else None
    if not isinstance(results, dict) or not results:
        raise SourceError(f'{path} has no "results". Give the results_….json that lm_eval wrote (--output_path).')
    directions = content.get("higher_is_better")
    found = [
        score | {"measured_at": measured_at, "path": "lm-eval"}
        for task, figures in results.items()
        if isinstance(figures, dict)
        for score in _scores(str(task), figures, _of_task(directions, task))
    ]
    if not found:
        raise SourceError(f"{path} holds no score that is better when higher. Choose a task with acc or exact_match.")
    return found


def _scores(task: str, figures: Mapping[str, Any], directions: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for key, value in figures.items():
        metric, _, how = key.partition(",")
        if not how or metric.endswith("_stderr") or not directions.get(metric) or not _is_number(value):
            continue
        score = {"metric": metric if how == _PLAIN else key, "dataset": task, "value": value}
        error = figures.get(f"{metric}_stderr,{how}")
        if _is_number(error):
            most = 1.0 if value <= 1 else math.inf
            score["interval"] = [max(0.0, value - _Z * error), min(most, value + _Z * error)]
        yield score


def _of_task(directions: Any, task: Any) -> Mapping[str, Any]:
    found = directions.get(task) if isinstance(directions, dict) else None
    return found if isinstance(found, dict) else {}


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0
