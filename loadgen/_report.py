"""Shows a run in the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from rich.table import Table

from loadgen._energy import EnergyReport
from loadgen._statistics import Distribution
from loadgen._summary import ModelFigures
from loadgen._validity import VALID

__all__ = [
    "DASH",
    "NOT_SAID",
    "count",
    "generator_lines",
    "joules_by_id",
    "milliseconds",
    "public_id",
    "run_table",
    "why_not_lines",
]

DASH = "—"
"""Unknown, or too few samples."""
NOT_SAID: Final = "n/a"
"""Measured, but not valid."""

_SHOWN: Final = ("time_to_first_token_s", "inter_token_latency_s")
_NAMES: Final[Mapping[str, str]] = {
    "time_to_first_token_s": "TTFT",
    "time_to_first_token_from_sent_s": "TTFT from sent",
    "inter_token_latency_s": "ITL",
    "inter_chunk_latency_s": "gaps between chunks",
    "time_per_output_token_s": "TPOT",
    "end_to_end_s": "end-to-end",
    "end_to_end_from_sent_s": "end-to-end from sent",
}


def milliseconds(seconds: float | None) -> str:
    if seconds is None:
        return DASH
    value = seconds * 1000
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"


def count(value: float | None, *, digits: int = 0) -> str:
    return DASH if value is None else f"{value:,.{digits}f}"


def public_id(*, model: str, variant: str, adapter: str) -> str:
    """The id that a client writes to get this configuration."""
    return f"{model if adapter == 'none' else adapter}:{variant}"


def joules_by_id(energy: EnergyReport | None) -> dict[str, float]:
    """J per output token by public id, replicas of one variant taken together."""
    joules: dict[str, float] = {}
    tokens: dict[str, int] = {}
    for use in energy.uses if energy else ():
        id_ = public_id(model=use.model, variant=use.variant, adapter=use.adapter)
        joules[id_] = joules.get(id_, 0.0) + use.active_joules
        tokens[id_] = tokens.get(id_, 0) + use.output_tokens
    return {id_: joules[id_] / tokens[id_] for id_ in joules if tokens[id_] > 0}


def run_table(figures: Sequence[ModelFigures], energy: EnergyReport | None) -> Table:
    """One row a model; fits 80 columns."""
    with_slo = any(of.goodput is not None for of in figures)
    table = Table(title="What clients felt (ms)", title_justify="left", pad_edge=False, box=None)
    table.add_column("model", overflow="fold", min_width=12)
    for heading in (
        "req",
        "err",
        "TTFT p50",
        "p95",
        "ITL p50",
        "p95",
        "tok/s",
        *(["good"] if with_slo else []),
        "J/tok",
    ):
        table.add_column(heading, justify="right", no_wrap=True)
    joules = joules_by_id(energy)
    for of in figures:
        table.add_row(
            of.model,
            str(of.requests),
            str(sum(of.errors.values())),
            *(text for name in _SHOWN for text in _percentiles(of, name)),
            count(of.output_tokens_per_s),
            *([_attainment(of)] if with_slo else []),
            count(_joules_of(of, energy, joules), digits=4),
        )
    return table


def generator_lines(summary: Mapping[str, Any]) -> Iterator[str]:
    """What the generator itself did to the times."""
    lateness, receive = summary["schedule_lateness_s"], summary["receive_lag_s"]
    if lateness is not None:
        yield (
            f"Open loop: {count(summary['offered_per_s'], digits=2)} requests/s due, "
            f"{count(summary['achieved_per_s'], digits=2)} sent, {_worst(lateness)} ms late."
        )
    if receive["max"] is not None:
        yield f"Arrivals were read {_worst(receive)} ms late."


def why_not_lines(figures: Sequence[ModelFigures]) -> Iterator[str]:
    """Why the table says n/a, each reason once."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for of in figures:
        for name in _SHOWN:
            verdict = of.validity.get(name)
            if verdict is not None and verdict.verdict != VALID and verdict.because:
                reasons.setdefault((_NAMES[name], verdict.because), []).append(of.model)
    for (name, because), models in reasons.items():
        yield f"{NOT_SAID}: {name} of {', '.join(models)}. {because}"


def _percentiles(of: ModelFigures, name: str) -> tuple[str, str]:
    verdict = of.validity.get(name)
    if verdict is not None and verdict.verdict != VALID:
        return NOT_SAID, NOT_SAID
    found: Distribution = getattr(of, name)
    return milliseconds(found.p50), milliseconds(found.p95)


def _attainment(of: ModelFigures) -> str:
    share = of.goodput.attainment if of.goodput else None
    return NOT_SAID if share is None else f"{share:.0%}"


def _worst(distribution: Mapping[str, Any]) -> str:
    """A tail, named: of few samples it is the longest."""
    if distribution["p99"] is not None:
        return f"p99 {milliseconds(distribution['p99'])}"
    return f"at most {milliseconds(distribution['max'])}"


def _joules_of(figures: ModelFigures, energy: EnergyReport | None, joules: Mapping[str, float]) -> float | None:
    """Of the model's own measured answers; where they are not known one by one, of the configuration that served."""
    own = energy.models.get(figures.model) if energy else None
    if own is not None and own.joules_per_output_token is not None:
        return own.joules_per_output_token
    names = list(figures.served_by) or [figures.model]
    return joules.get(names[0]) if len(names) == 1 else None
