"""What a run brought in, from one process or from many, and its summary.

summary.json, schema 2, beside the entries of `models` and `totals` (`_summary.ModelFigures`):

    partial, notes                    interrupted; what a reader must know before believing the figures
    started, origin_monotonic_s       the start: wall clock; CLOCK_MONOTONIC of the generator's machine
    window                            the measured stretch, seconds since the start
    arguments, workload, schedule_hash, slo          what was asked for
    versions, commit, machine, processes             what asked
    serving, engines, device, cache   what answered
    prompt_calibration, prompt_length_error   how prompts were made to a length, and how far they were from it
    offered_per_s, achieved_per_s, dropped, unfinished    of the requests that were due in the window
    schedule_lateness_s, receive_lag_s, merged_gaps_share   what the generator adds
    validity                          `rate`: whether claims at this rate hold
    tpot_drift                        TPOT of the window's second half by that of its first; far from 1: not steady
    energy, server, run               joined from the control API; null without it
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

from loadgen._energy import EnergyReport
from loadgen._gateway import Prepared
from loadgen._histogram import Histogram
from loadgen._plan import Plan
from loadgen._provenance import cache_state, commit, devices, machine, versions
from loadgen._record import Record
from loadgen._run import Run, schedule_of
from loadgen._slo import Slo
from loadgen._statistics import Distribution
from loadgen._summary import Goodput, ModelFigures, Window, drift_of, figures_of, lateness_of, total_of
from loadgen._validity import Lags, judge_rate
from loadgen._workloads import WORKLOADS, Workload
from loadgen._workloads._lengths import length_error

__all__ = ["Harvest", "Joined", "Outcome", "run_counts", "summary_of"]

_SCHEMA: Final = 2
_STEADY_SHARE: Final = 0.10
"""Between the halves of the window, by TPOT: more is a ramp, not a state."""


@dataclass(slots=True, kw_only=True)
class Harvest:
    """Mergeable: each process adds its part."""

    records: list[Record] = field(default_factory=list)
    dropped: int = 0
    unfinished: int = 0
    steady_until_s: float | None = None
    """The earliest moment at which a process sent nothing more."""
    schedule_hash: str | None = None
    receive_lag: Histogram = field(default_factory=Histogram)
    origins: set[float] = field(default_factory=set)
    """CLOCK_MONOTONIC of each process's start; one value where all share a clock."""
    processes: int = 0

    def add_run(self, run: Run) -> None:
        """A process's part, once it has ended."""
        self.records.extend(run.records)
        self.add_counts(run_counts(run))

    def add_counts(self, counts: Mapping[str, Any]) -> None:
        self.dropped += counts["dropped"]
        self.unfinished += counts["unfinished"]
        until = counts["steady_until_s"]
        if until is not None:
            self.steady_until_s = until if self.steady_until_s is None else min(self.steady_until_s, until)
        self.schedule_hash = counts["schedule_hash"] or self.schedule_hash
        self.receive_lag.merge(Histogram.from_json(counts["receive_lag"]))
        self.origins.add(counts["origin"])
        self.processes += 1

    @property
    def origin(self) -> float | None:
        """None: the processes ran on several machines, which share no clock."""
        return next(iter(self.origins)) if len(self.origins) == 1 else None

    def window(self, plan: Plan) -> Window:
        return Window(start_s=plan.warm_up_s, end_s=self.steady_until_s or 0.0)


def run_counts(run: Run) -> dict[str, Any]:
    """What a worker tells the master beside its records."""
    return {
        "dropped": run.dropped,
        "unfinished": run.unfinished,
        "steady_until_s": run.steady_until_s,
        "schedule_hash": run.schedule_hash,
        "receive_lag": run.receive_lag.histogram.to_json(),
        "origin": run.origin,
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """What the control API told of the run; None: nothing."""

    energy: EnergyReport | None = None
    engines: list[dict[str, Any]] | None = None
    server: Any = None
    """Plain JSON."""
    run: Any = None
    """Plain JSON."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A finished run, ready to be shown and written."""

    figures: list[ModelFigures]
    energy: EnergyReport | None
    notes: list[str]
    """What a reader must know before believing the figures."""
    summary: dict[str, Any]
    slo: Slo


def summary_of(
    plan: Plan, prepared: Prepared, harvest: Harvest, *, joined: Joined, notes: list[str], started: str
) -> Outcome:
    """`started` is the wall clock's ISO 8601 time at the run's start."""
    window, records, slo = harvest.window(plan), harvest.records, Slo.parse(plan.slo)
    workload = WORKLOADS[plan.workload](plan, prepared)
    lags = Lags.of(records, receive=harvest.receive_lag, open_loop=plan.open_loop)
    figures = figures_of(records, window, lags=lags, slo=slo)
    totals = _with_missing(total_of(records, window, lags=lags, slo=slo), harvest)
    rates = _rates(plan, workload, harvest, window)
    rate = judge_rate(**rates)
    drift = drift_of(records, window)
    notes = [
        *notes,
        *_notes(plan, harvest, totals),
        *_not_steady(drift),
        *([rate.because or ""] if rate.verdict == "invalid" else []),
    ]
    summary: dict[str, Any] = {
        "schema": _SCHEMA,
        "partial": False,
        "started": started,
        "origin_monotonic_s": harvest.origin,
        "window": {"start_s": window.start_s, "end_s": window.end_s, "length_s": window.length_s},
        "notes": notes,
        "arguments": plan.to_json(),
        "workload": workload.describe(),
        "schedule_hash": harvest.schedule_hash,
        "slo": dict(slo.bounds_s) if slo else None,
        "versions": versions(),
        "commit": commit(),
        "machine": machine(),
        "processes": harvest.processes,
        "serving": prepared.to_json()["cards"],
        "engines": joined.engines,
        "device": devices(joined.engines),
        "cache": cache_state(records, salt=plan.salt),
        "prompt_calibration": prepared.to_json()["calibrations"],
        "prompt_length_error": length_error(
            (record.prompt_tokens_wanted, record.prompt_tokens) for record in records if record.ok
        ),
        **rates,
        "dropped": harvest.dropped,
        "unfinished": harvest.unfinished,
        "schedule_lateness_s": asdict(lateness_of(records)) if plan.open_loop else None,
        "receive_lag_s": asdict(Distribution.of_histogram(harvest.receive_lag)),
        "kernel_receive_times": lags.kernel_times,
        "merged_gaps_share": lags.merged_share,
        "validity": {"rate": asdict(rate)},
        "tpot_drift": drift,
        "models": [asdict(of) for of in figures],
        "totals": asdict(totals),
        "energy": asdict(joined.energy) if joined.energy else None,
        "server": joined.server,
        "run": joined.run,
    }
    return Outcome(figures=figures, energy=joined.energy, notes=notes, summary=summary, slo=slo)


def _rates(plan: Plan, workload: Workload, harvest: Harvest, window: Window) -> dict[str, float | None]:
    """Requests that were due in the window, and those of them that were sent, by the time it took to send them."""
    if not plan.open_loop or window.length_s == 0:
        return {"offered_per_s": None, "achieved_per_s": None}
    schedule = schedule_of(plan, workload.times_s)
    due = int(((schedule >= window.start_s) & (schedule < window.end_s)).sum())
    sent = [record.sent_s for record in harvest.records if window.holds(record.scheduled_s)]
    took_s = max([window.length_s, *(at - window.start_s for at in sent)])
    return {"offered_per_s": due / window.length_s, "achieved_per_s": max(0, due - harvest.dropped) / took_s}


def _with_missing(totals: ModelFigures, harvest: Harvest) -> ModelFigures:
    """Requests that were dropped or cut off by the end were not good either; of which model they were is not known."""
    goodput, missing = totals.goodput, harvest.dropped + harvest.unfinished
    if goodput is None or goodput.attainment is None or not missing:
        return totals
    attainment = goodput.attainment * totals.requests / (totals.requests + missing)
    return replace(totals, goodput=replace(goodput, attainment=attainment))


def _not_steady(drift: float | None) -> list[str]:
    if drift is None or abs(drift - 1) <= _STEADY_SHARE:
        return []
    return [
        f"Not steady: TPOT in the window's second half was {drift:.2f} times that of the first. Warm up for longer."
    ]


def _notes(plan: Plan, harvest: Harvest, totals: ModelFigures) -> list[str]:
    notes = []
    if harvest.dropped:
        notes.append(
            f"{harvest.dropped} requests were not sent, since {plan.max_in_flight} were in flight (--max-in-flight): "
            "they count against the rate and the goodput."
        )
    if harvest.unfinished:
        notes.append(f"{harvest.unfinished} requests were cut off by the end of the run: latencies lack the longest.")
    if totals.without_usage:
        notes.append(f"{totals.without_usage} answers came without usage: their tokens are unknown, and not estimated.")
    if totals.goodput == Goodput(requests_per_s=None, output_tokens_per_s=None, attainment=None):
        notes.append("The SLO bounds something that these answers do not have or say: no goodput.")
    return notes
