"""Regression mode: this comparison's configurations against those of a stored one."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from loadgen._compare._analysis import MAX_GOODPUT, Analysis, higher_is_better, title_of
from loadgen._compare._design import Level
from loadgen._compare._document import PlanError
from loadgen._compare._plan import ComparePlan
from loadgen._compare._statistics import Worse, holm, worse_than
from loadgen._compare._verdict import TIMES, percent

__all__ = ["Baseline", "Regression", "regressions", "sentences"]

_MUST_AGREE = ("load", "configurations")


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """What `results.json` of another comparison holds."""

    file: Path
    levels: tuple[Level, ...]
    values: Mapping[tuple[str, str, Level | None], Sequence[float]]
    machine: str | None

    @classmethod
    def read(cls, file: Path, plan: ComparePlan) -> Self:
        """Raises `PlanError` if it cannot be compared with this plan."""
        try:
            data = json.loads(file.read_text(encoding="utf-8"))
            stored = data["plan"]
            baseline = cls(
                file=file,
                levels=tuple(Level(**level) for level in data["levels"]),
                values={
                    (entry["configuration"], entry["metric"], _level(entry["level"])): entry["values"]
                    for entry in data["samples"]
                },
                machine=data.get("machine"),
            )
        except (OSError, ValueError, KeyError, TypeError) as exc:
            raise PlanError(
                f"{file} is no results.json of `wattgate compare` ({exc!r}). Make one: run the plan without --baseline."
            ) from exc
        now = plan.to_json()
        changed = [key for key in _MUST_AGREE if stored.get(key) != now[key]]
        if changed:
            raise PlanError(
                f"{file} was measured with another {' and another '.join(changed)} than the plan has: no regression "
                "can be told from that. Measure a new baseline, or set the plan back."
            )
        return baseline


@dataclass(frozen=True, slots=True, kw_only=True)
class Regression:
    """One metric of one configuration, now against then."""

    configuration: str
    metric: str
    level: Level | None
    worse: Worse
    p: float
    """Adjusted by Holm's method."""
    certain: bool
    """Worse by more than the margin."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def regressions(analysis: Analysis, baseline: Baseline) -> list[Regression]:
    """Every metric that both have. Not paired: whatever changed on the machine since then is in them, too."""
    plan = analysis.plan
    found = []
    for (name, metric, level), before in baseline.values.items():
        now = _known(analysis.samples.get((name, metric, level), {}).values())
        worse = worse_than(
            _costs(metric, now), _costs(metric, _known(before)), confidence=plan.confidence, margin=plan.margin
        )
        if name in plan.names and (metric in plan.metrics or metric == MAX_GOODPUT) and worse is not None:
            found.append((name, metric, level, worse))
    adjusted = holm([worse.p for *_, worse in found])
    return [
        Regression(configuration=name, metric=metric, level=level, worse=worse, p=p, certain=p < 1 - plan.confidence)
        for (name, metric, level, worse), p in zip(found, adjusted, strict=True)
    ]


def sentences(found: Sequence[Regression], baseline: Baseline, plan: ComparePlan) -> list[str]:
    certain = [one for one in found if one.certain]
    if baseline.machine not in {None, platform.platform()}:
        other = f"{baseline.file} was measured on another system: {baseline.machine}."
        return [other, *_said(found, certain, baseline, plan)]
    return _said(found, certain, baseline, plan)


def _said(
    found: Sequence[Regression], certain: Sequence[Regression], baseline: Baseline, plan: ComparePlan
) -> list[str]:
    if not found:
        return [f"Nothing in {baseline.file} can be compared with these runs."]
    if not certain:
        margin = percent(plan.margin)
        return [f"No regression: of {len(found)} figures none is worse than {baseline.file} by more than {margin}."]
    return [
        f"REGRESSION: {one.configuration}, {title_of(one.metric)}{f', {one.level.title}' if one.level else ''}: "
        f"{one.worse.ratio:.2f}{TIMES} worse than in {baseline.file} (at least {one.worse.low:.2f}{TIMES})."
        for one in certain
    ]


def _level(data: Mapping[str, Any] | None) -> Level | None:
    return None if data is None else Level(**data)


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None and value > 0]


def _costs(metric: str, values: Sequence[float]) -> list[float]:
    """Logarithms, turned so that larger is worse."""
    return [(-1 if higher_is_better(metric) else 1) * math.log(value) for value in values]
