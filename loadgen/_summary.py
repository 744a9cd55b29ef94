"""A run's figures, per model, from its records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from loadgen._record import Record
from loadgen._statistics import Distribution

__all__ = ["ModelFigures", "Window", "figures_of", "lateness_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """The steady state, seconds since the run's start: after the warm-up, before the load fell."""

    start_s: float
    end_s: float

    @property
    def length_s(self) -> float:
        return max(0.0, self.end_s - self.start_s)


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
    time_per_output_token_s: Distribution
    end_to_end_s: Distribution
    output_tokens_per_s: float | None
    """Tokens that arrived within the window, of all streams, by its length."""
    requests_per_s: float | None
    prompt_tokens: int
    cached_tokens: int | None
    """None: the server does not say."""
    output_tokens: int
    without_usage: int
    """Whole answers whose tokens are unknown."""


def figures_of(records: Sequence[Record], window: Window) -> list[ModelFigures]:
    """One entry a model, in the order of their first request."""
    models = list(dict.fromkeys(record.model for record in sorted(records, key=lambda record: record.index)))
    return [_of_model(model, [record for record in records if record.model == model], window) for model in models]


def lateness_of(records: Iterable[Record]) -> Distribution:
    """How late the generator sent what was due: its own fault, not the server's."""
    return Distribution.of([record.sent_s - record.scheduled_s for record in records if not record.warm_up])


def _of_model(model: str, records: Sequence[Record], window: Window) -> ModelFigures:
    measured = [record for record in records if not record.warm_up]
    whole = [record for record in measured if record.ok]
    failed = [record for record in measured if not record.ok]
    warm_up = [record for record in records if record.warm_up]
    return ModelFigures(
        model=model,
        requests=len(measured),
        ok=len(whole),
        errors=dict(Counter(str(record.error) for record in failed)),
        first_message=next((record.message for record in (*failed, *_failed(warm_up))), None),
        served_by=dict(Counter(record.served_by for record in whole if record.served_by)),
        warm_up_requests=len(warm_up),
        warm_up_errors=len(_failed(warm_up)),
        time_to_first_token_s=_distribution(whole, lambda record: record.time_to_first_token_s),
        time_to_first_token_from_sent_s=_distribution(whole, lambda record: record.time_to_first_token_from_sent_s),
        inter_token_latency_s=Distribution.of([gap for record in whole for gap in record.inter_token_latencies_s]),
        inter_token_latency_exact=all(record.one_token_a_chunk for record in whole),
        time_per_output_token_s=_distribution(whole, lambda record: record.time_per_output_token_s),
        end_to_end_s=_distribution(whole, lambda record: record.end_to_end_s),
        output_tokens_per_s=_throughput(records, window),
        requests_per_s=_rate(
            sum(window.start_s <= record.ended_s < window.end_s for record in records if record.ok), window
        ),
        prompt_tokens=sum(record.prompt_tokens or 0 for record in whole),
        cached_tokens=_sum_if_any([record.cached_tokens for record in whole]),
        output_tokens=sum(record.output_tokens or 0 for record in whole),
        without_usage=sum(record.output_tokens is None for record in whole),
    )


def _failed(records: Iterable[Record]) -> list[Record]:
    return [record for record in records if not record.ok]


def _distribution(records: Iterable[Record], value: Callable[[Record], float | None]) -> Distribution:
    return Distribution.of([found for found in map(value, records) if found is not None])


def _throughput(records: Sequence[Record], window: Window) -> float | None:
    """Requests that began in the warm-up or end in the drain count with the tokens that fell into the window."""
    return _rate(sum(record.output_tokens_between(window.start_s, window.end_s) for record in records), window)


def _rate(amount: float, window: Window) -> float | None:
    return amount / window.length_s if window.length_s > 0 else None


def _sum_if_any(values: Sequence[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None
