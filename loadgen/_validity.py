"""Which figures of a run may be believed, and why the others may not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Final, Literal

from loadgen._histogram import Histogram
from loadgen._record import Record
from loadgen._statistics import Distribution

__all__ = ["VALID", "Lags", "Verdict", "judge_rate", "judged"]

VALID: Final = "valid"

_LAG_SHARE: Final = 0.10
"""Of a metric's typical value; a lag that is longer drowns it."""
_RATE_SHARE: Final = 0.02
"""Between what was offered and what was sent; beyond it the rate is not the one that was asked for."""
_MERGED_SHARE: Final = 0.01
"""Of the gaps; with more that a read over several tokens has shifted, a 99th percentile is made of them."""

_LATE: Final = frozenset({"time_to_first_token_s", "end_to_end_s"})
"""Count from the scheduled time: what the generator sends late is in them."""
_ENDS: Final = frozenset({"end_to_end_s", "end_to_end_from_sent_s"})
"""Made of the last arrival alone, which no later one in the same read can have moved."""
_SPAN: Final = "time_per_output_token_s"
"""Made of two times that lie far apart, not of neighbours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """`n/a`: cannot be said; `invalid`: was said and is wrong."""

    verdict: Literal["valid", "n/a", "invalid"]
    because: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Lags:
    """What the generator itself adds to the times, and how it takes them.

    The 99th percentiles here have no floor: they judge the instrument, and of few samples they are the longest.
    """

    lateness_p99_s: float | None
    """From due to sent; None in closed loop."""
    receive_p99_s: float | None
    """From arrived to read; None: not measured."""
    kernel_times: bool
    """Arrivals have the kernel's times: a late read does not move them."""
    merged_share: float
    """Of the gaps between chunks, those that begin or end within a read of several tokens."""

    @classmethod
    def of(cls, records: Sequence[Record], *, receive: Histogram, open_loop: bool) -> Lags:
        streams = [record for record in records if record.token_s]
        lateness = Histogram.of(
            record.sent_s - record.scheduled_s for record in records if open_loop and not record.warm_up
        )
        return cls(
            lateness_p99_s=lateness.quantile(0.99),
            receive_p99_s=receive.quantile(0.99),
            kernel_times=_have_kernel_times(streams),
            merged_share=_merged_share(streams),
        )


def judge_rate(*, offered_per_s: float | None, achieved_per_s: float | None) -> Verdict:
    """Of everything that is claimed "at so many requests a second"."""
    if offered_per_s is None:
        return Verdict(verdict="n/a", because="Closed loop offers no rate: what it reaches is the server's answer.")
    if not offered_per_s or achieved_per_s is None:
        return Verdict(verdict="n/a", because="Nothing was due in the measured window.")
    if abs(achieved_per_s / offered_per_s - 1) <= _RATE_SHARE:
        return Verdict(verdict="valid")
    return Verdict(
        verdict="invalid",
        because=f"{achieved_per_s:.4g} requests/s were sent of {offered_per_s:.4g} that were due: more than "
        f"{_RATE_SHARE:.0%} apart. Lower the rate, or give more --processes.",
    )


def judged(metrics: Mapping[str, Distribution], whole: Sequence[Record], lags: Lags) -> dict[str, Verdict]:
    """A verdict a metric; `whole` are the answers that the metrics are of."""
    return {name: _metric(name, found, whole, lags) for name, found in metrics.items()}


def _metric(name: str, found: Distribution, whole: Sequence[Record], lags: Lags) -> Verdict:
    if found.samples == 0 or found.typical is None:
        return Verdict(verdict="n/a", because=_why_nothing(whole))
    if lags.receive_p99_s is None:
        return Verdict(verdict="n/a", because="How late this process read was not measured.")
    yardstick = _span(whole) if name == _SPAN else found.typical
    return next(
        (Verdict(verdict="n/a", because=why) for why in _too_late(name, yardstick, lags)), Verdict(verdict=VALID)
    )


def _too_late(name: str, yardstick: float, lags: Lags) -> Iterable[str]:
    lateness, receive = lags.lateness_p99_s or 0.0, lags.receive_p99_s or 0.0
    if name in _LATE and lateness > _LAG_SHARE * yardstick:
        yield _longer("Requests were sent late", lateness, yardstick)
    # Of a read that holds several events the kernel's time is that of the last.
    if lags.kernel_times and (name in _ENDS or lags.merged_share <= _MERGED_SHARE):
        return
    if receive > _LAG_SHARE * yardstick:
        merged = f", {lags.merged_share:.1%} of the gaps lie at reads of several tokens" if lags.kernel_times else ""
        yield _longer("Answers were read late", receive, yardstick, merged)


def _have_kernel_times(streams: Sequence[Record]) -> bool:
    """Nearly all: a kernel begins to stamp a moment after it was first asked to."""
    without = sum(record.receive_lag_s is None for record in streams)
    return bool(streams) and without <= _MERGED_SHARE * len(streams)


def _merged_share(streams: Sequence[Record]) -> float:
    """Tokens of one read have the same time: their gaps are 0, and the gap before them is too long."""
    gaps = merged = 0
    for record in streams:
        of = record.inter_chunk_latencies_s
        gaps += len(of)
        merged += sum(gap == 0.0 or following == 0.0 for gap, following in zip_longest(of, of[1:]))
    return merged / gaps if gaps else 0.0


def _longer(what: str, worst: float, yardstick: float, more: str = "") -> str:
    return f"{what}: p99 {worst * 1e3:.3g} ms is over {_LAG_SHARE:.0%} of {yardstick * 1e3:.3g} ms{more}."


def _span(whole: Sequence[Record]) -> float:
    """The typical time from first to last token."""
    found = Distribution.of([record.token_s[-1] - record.token_s[0] for record in whole if len(record.token_s) > 1])
    return found.typical or 0.0


def _why_nothing(whole: Sequence[Record]) -> str:
    if not whole:
        return "No answer was whole."
    if not any(record.streamed for record in whole):
        return "The answers were not streamed."
    if all(record.output_tokens is None for record in whole):
        return "The server gave no usage, and chunks are not counted as tokens."
    return "No answer was long enough."
