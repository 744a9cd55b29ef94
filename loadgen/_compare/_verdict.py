"""The verdict in sentences, from the data alone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Final

from loadgen._compare._analysis import Analysis, Finding, title_of
from loadgen._compare._design import Level
from loadgen._compare._ranks import ServerView
from loadgen._compare._statistics import Estimate, Outcome

__all__ = ["TIMES", "interval", "percent", "ratio", "trust_sentence", "verdict"]

TIMES: Final = "×"  # noqa: RUF001 - the sign of multiplication is meant
_ESTIMATED: Final = "estimated"
_NOTABLE: Final = 0.05
_TO: Final = "–"  # noqa: RUF001 - and the dash of a range


def verdict(analysis: Analysis, server: ServerView) -> list[str]:
    """One sentence a configuration and level; first of all whether any of it can be believed."""
    sentences = [trust_sentence(analysis)]
    for name in analysis.plan.names[1:]:
        for level in dict.fromkeys(one.level for one in analysis.findings):
            mine = [one for one in analysis.findings if one.configuration == name and one.level == level]
            sentences.append(_sentence(analysis, name, level, mine))
        sentences += _quality(analysis, name, server)
    return [*sentences, *_failures(analysis), *_width_missed(analysis), *_caveats(analysis)]


def trust_sentence(analysis: Analysis) -> str:
    trust, name, margin = analysis.trust, analysis.plan.reference, percent(analysis.plan.margin)
    start = f"A/A ({name} against itself): "
    if trust.verdict == "NOT TRUSTWORTHY":
        return (
            f"NOT TRUSTWORTHY. {start}{_ratios(trust.differing)}. The same configuration came out different: something "
            "other than the configuration decides these figures. Find it before believing any line below."
        )
    if trust.verdict == "not checked":
        return f"{start}not checked, fewer than three blocks are measured. Believe nothing yet."
    if trust.verdict == "equal":
        return f"{start}equal within ± {margin} in every metric."
    coarse = ", ".join(f"{_place(one)} (± {percent(_width(one.estimate))})" for one in trust.coarse)
    return f"{start}no difference; too noisy to be called equal within ± {margin}: {coarse}."


def ratio(value: float) -> str:
    if value >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"


def interval(found: Estimate) -> str:
    low, high = ratio(found.low), ratio(found.high)
    if low == high or (found.low > 1 and low == "1.00") or (found.high < 1 and high == "1.00"):
        return f"{found.low:.4f}{_TO}{found.high:.4f}"
    return f"{low}{_TO}{high}"


def percent(part: float) -> str:
    return f"{part * 100:.2g} %"


def _sentence(analysis: Analysis, name: str, level: Level | None, findings: Sequence[Finding]) -> str:
    parts = []
    differing = [one for one in findings if one.outcome is Outcome.DIFFERS]
    if differing:
        parts.append(_ratios(differing, with_level=False))
    equal = [one for one in findings if one.outcome is Outcome.EQUIVALENT]
    if equal:
        parts.append(f"no difference beyond ± {percent(analysis.plan.margin)} in {_titles(equal)}")
    undecided = [one for one in findings if one.outcome is Outcome.UNDECIDED]
    if undecided:
        parts.append(f"undecided: {_ratios(undecided, with_level=False)}")
    unknown = [f"{title_of(one.metric)} ({one.missing})" for one in findings if one.outcome is None]
    if unknown:
        parts.append(f"not known: {', '.join(unknown)}")
    where = f", {level.title}" if level is not None else ", over all rates"
    return f"{name} against {analysis.plan.reference}{where}: {'; '.join(parts) or 'nothing was measured'}."


def _ratios(findings: Iterable[Finding], *, with_level: bool = True) -> str:
    return ", ".join(
        f"{ratio(one.estimate.ratio)}{TIMES} {_place(one) if with_level else title_of(one.metric)} "
        f"({interval(one.estimate)})"
        for one in findings
        if one.estimate is not None
    )


def _titles(findings: Iterable[Finding]) -> str:
    return ", ".join(title_of(one.metric) for one in findings)


def _place(finding: Finding) -> str:
    return f"{title_of(finding.metric)}, {finding.level.title}" if finding.level else title_of(finding.metric)


def _width(found: Estimate | None) -> float:
    """Of an interval around 1, as a part of 1."""
    return math.expm1(found.half_width) if found is not None else math.nan


def _quality(analysis: Analysis, name: str, server: ServerView) -> list[str]:
    mine, reference = server.quality.get(name), server.quality.get(analysis.plan.reference)
    if mine is None or reference is None:
        return []
    metric, _, dataset = (server.quality_of or "quality").partition(":")
    # What the server has is performance, 1 / perplexity: a perplexity's change is the inverse ratio.
    change = reference / mine if metric == "perplexity" else mine / reference
    on = f" on {dataset}" if dataset else ""
    return [
        f"{name} against {analysis.plan.reference}: {metric} {(change - 1) * 100:+.2f} %{on}, as measured beforehand."
    ]


def _width_missed(analysis: Analysis) -> list[str]:
    """What the number of blocks was to reach, and did not."""
    target = analysis.plan.blocks.half_width
    wide = [one for one in analysis.findings if one.estimate is not None and one.estimate.half_width > target > 0]
    if not wide:
        return []
    places = ", ".join(f"{one.configuration}'s {_place(one)} (± {percent(_width(one.estimate))})" for one in wide)
    return [f"After {analysis.blocks} blocks still wider than ± {percent(math.expm1(target))}: {places}."]


def _caveats(analysis: Analysis) -> list[str]:
    """Of the joules and of the cache, where they need one."""
    sentences = []
    if any(_ESTIMATED in found.joules_scopes for found in analysis.figures.values()):
        sentences.append("Joules are estimated from CPU time, not measured: compare them with each other only.")
    for name in analysis.plan.names:
        shares = [found.cached_share for run, found in analysis.figures.items() if run.configuration == name]
        largest = max((share for share in shares if share is not None), default=0.0)
        if largest > _NOTABLE:
            sentences.append(f"{name}: up to {percent(largest)} of a run's prompt tokens came from the engine's cache.")
    return sentences


def _failures(analysis: Analysis) -> list[str]:
    sentences = []
    for name in analysis.plan.names:
        for level in analysis.levels:
            failed, requests = analysis.failed(name, level)
            if failed:
                sentences.append(
                    f"{name}, {level.title}: {failed} of {requests} requests failed ({percent(failed / requests)}); "
                    "latencies are of the others."
                )
            invalid = sum(
                found.rate_verdict == "invalid"
                for run, found in analysis.figures.items()
                if run.configuration == name and run.level == level
            )
            if invalid:
                sentences.append(
                    f"{name}, {level.title}: the offered rate was not achieved in {invalid} of {analysis.blocks} runs; "
                    "what stands for this rate is INVALID there."
                )
    return sentences
