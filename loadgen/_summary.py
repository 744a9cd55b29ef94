"""A run's figures, per model, from its records.

A model's entry in summary.json (schema 2) has the fields of `ModelFigures`; `docs/load.md` says what each one means.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from loadgen._histogram import Histogram
from loadgen._record import EXACT, Record
from loadgen._slo import Slo
from loadgen._statistics import Distribution
from loadgen._validity import Lags, Verdict, judged

__all__ = [
    "ALL",
    "LATENCIES",
    "Goodput",
    "ModelFigures",
    "Window",
    "drift_of",
    "figures_of",
    "histograms_of",
    "lateness_of",
    "total_of",
]

ALL: Final = "all"
"""Stands for every model together."""

LATENCIES: Final[Mapping[str, Callable[[Record], Sequence[float | None]]]] = {
    "time_to_first_token_s": lambda record: (record.time_to_first_token_s,),
    "time_to_first_token_from_sent_s": lambda record: (record.time_to_first_token_from_sent_s,),
    "inter_token_latency_s": lambda record: record.inter_token_latencies_s,
    "inter_chunk_latency_s": lambda record: record.inter_chunk_latencies_s,
    "time_per_output_token_s": lambda record: (record.time_per_output_token_s,),
    "end_to_end_s": lambda record: (record.end_to_end_s,),
    "end_to_end_from_sent_s": lambda record: (record.end_to_end_from_sent_s,),
}
"""What is measured of a whole answer, and its samples."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """The steady state, seconds since the run's start: after the warm-up, before the load fell."""

    start_s: float
    end_s: float

    @property
    def length_s(self) -> float:
        return max(0.0, self.end_s - self.start_s)

    def holds(self, at_s: float) -> bool:
        return self.start_s <= at_s < self.end_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Goodput:
    """What kept every bound of the SLO; None where some answers cannot be judged by it."""

    requests_per_s: float | None
    """Good answers that ended within the window, by its length."""
    output_tokens_per_s: float | None
    """Their output tokens."""
    attainment: float | None
    """Good answers by all requests that were measured: failures, time-outs and refusals count against it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFigures:
    """What one model id did in the window; latencies are of whole answers only, failures stand beside them."""

    model: str
    requests: int
    ok: int
    errors: Mapping[str, int]
    """By kind."""
    first_message: str | None
    """What the first error said."""
    served_by: Mapping[str, int]
    warm_up_requests: int
    warm_up_errors: int
    time_to_first_token_s: Distribution
    """From the scheduled time."""
    time_to_first_token_from_sent_s: Distribution
    inter_token_latency_s: Distribution
    inter_token_latency_exact: bool
    """Every chunk carried one token; else gaps are spread over their tokens."""
    inter_token_latency_basis: Mapping[str, int]
    """Answers by how their tokens were told apart."""
    inter_chunk_latency_s: Distribution
    time_per_output_token_s: Distribution
    end_to_end_s: Distribution
    end_to_end_from_sent_s: Distribution
    output_tokens_per_s: float | None
    """Tokens that arrived within the window, of all streams, by its length; None if some answers' are unknown."""
    requests_per_s: float | None
    prompt_tokens: int
    cached_tokens: int | None
    """None: the server does not say."""
    output_tokens: int
    reasoning_tokens: int | None
    """Of the output tokens; None: the server does not say."""
    without_usage: int
    """Whole answers whose tokens are unknown."""
    goodput: Goodput | None
    """None: no SLO."""
    validity: Mapping[str, Verdict]
    """By latency; a figure that is not valid is shown as n/a."""


def figures_of(
    records: Sequence[Record], window: Window, *, lags: Lags | None = None, slo: Slo | None = None
) -> list[ModelFigures]:
    """One entry a model, in the order of their first request."""
    by_model: dict[str, list[Record]] = {}
    for record in sorted(records, key=lambda record: record.index):
        by_model.setdefault(record.model, []).append(record)
    return [total_of(mine, window, model=model, lags=lags, slo=slo) for model, mine in by_model.items()]


def total_of(
    records: Sequence[Record], window: Window, *, model: str = ALL, lags: Lags | None = None, slo: Slo | None = None
) -> ModelFigures:
    """All records as one entry."""
    measured = [record for record in records if not record.warm_up]
    whole = [record for record in measured if record.ok]
    failed = [record for record in measured if not record.ok]
    warm_up = [record for record in records if record.warm_up]
    latencies = {name: _distribution(whole, samples) for name, samples in LATENCIES.items()}
    ended = [record for record in records if record.ok and window.holds(record.ended_s)]
    return ModelFigures(
        model=model,
        requests=len(measured),
        ok=len(whole),
        errors=dict(Counter(str(record.error) for record in failed)),
        first_message=next((record.message for record in (*failed, *_failed(warm_up))), None),
        served_by=dict(Counter(record.served_by for record in whole if record.served_by)),
        warm_up_requests=len(warm_up),
        warm_up_errors=len(_failed(warm_up)),
        **latencies,
        inter_token_latency_exact=all(record.token_basis == EXACT for record in whole),
        inter_token_latency_basis=dict(Counter(record.token_basis or "unknown" for record in whole if record.token_s)),
        output_tokens_per_s=_throughput(records, window),
        requests_per_s=_rate(len(ended), window),
        prompt_tokens=sum(record.prompt_tokens or 0 for record in whole),
        cached_tokens=_sum_if_any([record.cached_tokens for record in whole]),
        output_tokens=sum(record.output_tokens or 0 for record in whole),
        reasoning_tokens=_sum_if_any([record.reasoning_tokens for record in whole]),
        without_usage=sum(_lacks_usage(record) for record in whole),
        goodput=_goodput(measured, ended, window, slo) if slo else None,
        validity=judged(latencies, whole, lags) if lags else {},
    )


def lateness_of(records: Iterable[Record]) -> Distribution:
    """How late the generator sent what was due: its own fault, not the server's."""
    return Distribution.of([record.sent_s - record.scheduled_s for record in records if not record.warm_up])


def drift_of(records: Sequence[Record], window: Window) -> float | None:
    """Median TPOT of what was sent in the window's second half by that of its first: about 1 in a steady state."""
    middle = (window.start_s + window.end_s) / 2
    halves: tuple[list[float], list[float]] = ([], [])
    for record in records:
        tpot = record.time_per_output_token_s
        if record.ok and tpot is not None and window.holds(record.sent_s):
            halves[record.sent_s >= middle].append(tpot)
    first, second = (Distribution.of(half).p50 for half in halves)
    return second / first if first and second is not None else None


def histograms_of(records: Iterable[Record]) -> dict[str, Histogram]:
    """The whole distribution of each latency, of whole answers after the warm-up."""
    found = {name: Histogram() for name in LATENCIES}
    for record in records:
        if record.ok and not record.warm_up:
            for name, samples in LATENCIES.items():
                for value in _known(samples(record)):
                    found[name].add(value)
    return found


def _failed(records: Iterable[Record]) -> list[Record]:
    return [record for record in records if not record.ok]


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _distribution(records: Iterable[Record], samples: Callable[[Record], Sequence[float | None]]) -> Distribution:
    return Distribution.of([value for record in records for value in _known(samples(record))])


def _lacks_usage(record: Record) -> bool:
    """An embedding has no output to be counted."""
    return record.prompt_tokens is None if "embeddings" in record.endpoint else record.output_tokens is None


def _throughput(records: Sequence[Record], window: Window) -> float | None:
    """Requests that began in the warm-up or end in the drain count with the tokens that fell into the window."""
    if any(record.output_tokens is None for record in records if record.ok):
        return None
    return _rate(sum(record.output_tokens_between(window.start_s, window.end_s) for record in records), window)


def _goodput(measured: Sequence[Record], ended: Sequence[Record], window: Window, slo: Slo) -> Goodput:
    met = [slo.met(record) for record in measured]
    ended_well = [(record, slo.met(record)) for record in ended]
    if None in met or any(good is None for _, good in ended_well):
        return Goodput(requests_per_s=None, output_tokens_per_s=None, attainment=None)
    good = [record for record, good in ended_well if good]
    return Goodput(
        requests_per_s=_rate(len(good), window),
        output_tokens_per_s=_throughput_of_good(good, window),
        attainment=sum(map(bool, met)) / len(met) if met else None,
    )


def _throughput_of_good(good: Sequence[Record], window: Window) -> float | None:
    if any(record.output_tokens is None for record in good):
        return None
    return _rate(sum(record.output_tokens or 0 for record in good), window)


def _rate(amount: float, window: Window) -> float | None:
    return amount / window.length_s if window.length_s > 0 else None


def _sum_if_any(values: Sequence[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None
