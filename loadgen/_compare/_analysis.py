"""Every run's figures in, everything that can be said of them out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from loadgen._compare._design import Level, Run, twin_of
from loadgen._compare._metrics import METRICS
from loadgen._compare._plan import ComparePlan
from loadgen._compare._reading import Figures
from loadgen._compare._statistics import Estimate, Outcome, blocks_needed, estimate, holm, outcome_of

__all__ = [
    "MAX_GOODPUT",
    "Analysis",
    "Finding",
    "Samples",
    "Trust",
    "analyse",
    "blocks_wanted",
    "higher_is_better",
    "title_of",
]

MAX_GOODPUT = "max_goodput"
"""At equal SLO: the most good requests a second that any rate of the ladder gave."""

Key = tuple[str, str, Level | None]
"""Configuration, metric, level; None: over all rates."""
Samples = Mapping[Key, Mapping[int, float | None]]
"""By block."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One metric of a configuration against the reference's, at one level."""

    configuration: str
    metric: str
    level: Level | None
    estimate: Estimate | None
    p_differs: float
    """Adjusted by Holm's method, as the next one."""
    p_equivalent: float
    outcome: Outcome | None
    missing: str | None
    """Why there is no estimate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """What the reference against itself gave."""

    verdict: str
    """`equal`, `no difference found`, `not checked`, or `NOT TRUSTWORTHY`."""
    differing: tuple[Finding, ...]
    coarse: tuple[Finding, ...]
    """Neither different nor shown to be equal: their intervals are too wide for the margin."""

    @property
    def trusted(self) -> bool:
        return self.verdict in {"equal", "no difference found"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Analysis:
    """A comparison's results."""

    plan: ComparePlan
    levels: tuple[Level, ...]
    blocks: int
    samples: Samples
    findings: tuple[Finding, ...]
    twins: tuple[Finding, ...]
    trust: Trust
    figures: Mapping[Run, Figures]

    def mean(self, configuration: str, metric: str, level: Level | None) -> float | None:
        """Geometric, over the blocks that have a value; None if none has, or if one is 0."""
        values = _known(self.samples.get((configuration, metric, level), {}).values())
        return math.exp(math.fsum(map(math.log, values)) / len(values)) if values and min(values) > 0 else None

    def failed(self, configuration: str, level: Level) -> tuple[int, int]:
        """Requests that failed, and all."""
        mine = [
            found for run, found in self.figures.items() if run.configuration == configuration and run.level == level
        ]
        return sum(found.failed for found in mine), sum(found.requests for found in mine)

    def finding(self, configuration: str, metric: str, level: Level | None) -> Finding | None:
        return next(
            (
                one
                for one in self.findings
                if (one.configuration, one.metric, one.level) == (configuration, metric, level)
            ),
            None,
        )


def title_of(metric: str) -> str:
    return "goodput at the SLO, at best" if metric == MAX_GOODPUT else METRICS[metric].title


def higher_is_better(metric: str) -> bool:
    return metric == MAX_GOODPUT or METRICS[metric].higher_is_better


def analyse(plan: ComparePlan, levels: Sequence[Level], figures: Mapping[Run, Figures]) -> Analysis:
    """Of whatever has been measured."""
    samples = _samples(plan, levels, figures)
    places = _places(plan, levels)
    findings = _family(plan, samples, [(name, *place) for name in plan.names[1:] for place in places])
    twins = _family(plan, samples, [(twin_of(plan.reference), *place) for place in places])
    return Analysis(
        plan=plan,
        levels=tuple(levels),
        blocks=max((run.block for run in figures), default=0),
        samples=samples,
        findings=findings,
        twins=twins,
        trust=_trust(twins),
        figures=figures,
    )


def blocks_wanted(plan: ComparePlan, analysis: Analysis) -> tuple[int, Finding | None]:
    """How many blocks in all, by the spread of the first ones; and the finding that needs most, if any needs more."""
    first, wanted, neediest = plan.blocks.at_least, plan.blocks.at_least, None
    if plan.blocks.half_width == 0:
        return first, None
    for finding in analysis.findings:
        logs = _log_ratios(plan, analysis.samples, (finding.configuration, finding.metric, finding.level))[:first]
        if len(logs) < first:
            continue
        needed = blocks_needed(logs, target=plan.blocks.half_width, confidence=plan.confidence)
        if needed > wanted:
            wanted, neediest = needed, finding
    return min(wanted, plan.blocks.at_most), neediest


def _places(plan: ComparePlan, levels: Iterable[Level]) -> list[tuple[str, Level | None]]:
    places: list[tuple[str, Level | None]] = [
        (metric, level) for level in levels for metric in plan.metrics if level.loop in METRICS[metric].loops
    ]
    return [*places, (MAX_GOODPUT, None)] if _has_ladder(plan, levels) else places


def _has_ladder(plan: ComparePlan, levels: Iterable[Level]) -> bool:
    return bool(plan.load.slo) and sum(level.loop == "open" for level in levels) > 1


def _samples(plan: ComparePlan, levels: Sequence[Level], figures: Mapping[Run, Figures]) -> Samples:
    samples: dict[Key, dict[int, float | None]] = {}
    for run, found in figures.items():
        for metric, value in found.values.items():
            samples.setdefault((run.configuration, metric, run.level), {})[run.block] = value
    if _has_ladder(plan, levels):
        _add_best_goodput(samples, levels)
    return samples


def _add_best_goodput(samples: dict[Key, dict[int, float | None]], levels: Sequence[Level]) -> None:
    """Only of blocks that have run the whole ladder."""
    ladder = [level for level in levels if level.loop == "open"]
    for name in {key[0] for key in samples}:
        rungs = [samples.get((name, "goodput", level), {}) for level in ladder]
        best: dict[int, float | None] = {}
        for block in set.intersection(*(set(rung) for rung in rungs)):
            known = [value for rung in rungs if (value := rung[block]) is not None]
            best[block] = max(known) if len(known) == len(rungs) else None
        samples[name, MAX_GOODPUT, None] = best


def _family(plan: ComparePlan, samples: Samples, keys: Sequence[Key]) -> tuple[Finding, ...]:
    """One family of tests: Holm's correction is over all of it."""
    estimates = [
        estimate(
            _log_ratios(plan, samples, key),
            first=plan.blocks.at_least,
            confidence=plan.confidence,
            margin=plan.margin,
        )
        for key in keys
    ]
    differs = holm([found.p_differs for found in estimates if found])
    equivalent = holm([found.p_equivalent for found in estimates if found])
    adjusted = iter(zip(differs, equivalent, strict=True))
    findings = []
    for (name, metric, level), found in zip(keys, estimates, strict=True):
        p_differs, p_equivalent = next(adjusted) if found else (1.0, 1.0)
        outcome = outcome_of(p_differs=p_differs, p_equivalent=p_equivalent, confidence=plan.confidence)
        findings.append(
            Finding(
                configuration=name,
                metric=metric,
                level=level,
                estimate=found,
                p_differs=p_differs,
                p_equivalent=p_equivalent,
                outcome=outcome if found else None,
                missing=None if found else _why_missing(plan, samples, (name, metric, level)),
            )
        )
    return tuple(findings)


def _log_ratios(plan: ComparePlan, samples: Samples, key: Key) -> list[float]:
    """In the order of the blocks in which both sides are known.

    Empty where any of them is 0: a ratio of the other blocks would be one of the blocks in which all went well.
    """
    mine, reference = samples.get(key, {}), samples.get((plan.reference, *key[1:]), {})
    pairs = [(mine[block], reference[block]) for block in sorted(set(mine) & set(reference))]
    known = [(one, other) for one, other in pairs if one is not None and other is not None]
    return [math.log(one / other) for one, other in known] if all(min(pair) > 0 for pair in known) else []


def _why_missing(plan: ComparePlan, samples: Samples, key: Key) -> str:
    for name in (plan.reference, key[0]):
        values = list(samples.get((name, *key[1:]), {}).values())
        if not values:
            return "not measured yet"
        if zeros := sum(value == 0 for value in values):
            return f"0 for {name} in {zeros} of {len(values)} blocks, and a ratio with 0 says nothing"
        if sum(value is not None for value in values) < 3:
            return f"unknown for {name} (too few requests for its percentile, not valid, or no meter)"
    return "fewer than three blocks have it on both sides"


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _trust(twins: Sequence[Finding]) -> Trust:
    known = [finding for finding in twins if finding.outcome is not None]
    differing = tuple(finding for finding in known if finding.outcome is Outcome.DIFFERS)
    coarse = tuple(finding for finding in known if finding.outcome is Outcome.UNDECIDED)
    if not known:
        verdict = "not checked"
    elif differing:
        verdict = "NOT TRUSTWORTHY"
    else:
        verdict = "no difference found" if coarse else "equal"
    return Trust(verdict=verdict, differing=differing, coarse=coarse)
