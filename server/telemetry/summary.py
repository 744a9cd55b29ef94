"""One row a configuration, without Prometheus: what tables and `/api/summary` show."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

from server.fleet import Replica
from server.telemetry.histogram import HistogramRow, Histograms, quantile
from server.telemetry.labels import NONE
from server.telemetry.metric import CONFIGURATION
from server.telemetry.metrics import CATALOGUE
from server.telemetry.observations import ITL, TPOT, TTFT
from server.telemetry.sources import EnergyFigures
from server.telemetry.spans import Spans
from server.telemetry.traffic import TrafficNow
from server.units import Joules, Microjoules, Seconds
from server.wire import Outcome

__all__ = ["Row", "summarize"]

_T = TypeVar("_T")

_ERRORS: Final = frozenset(outcome.value for outcome in Outcome) - {Outcome.OK.value, Outcome.CANCELLED.value}
_EDGES: Final = {name: Histograms(CATALOGUE[name].buckets).edges for name in (TTFT, ITL, TPOT)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Since the control plane started. None is unknown; quantiles are interpolated in buckets some percent wide."""

    group: Mapping[str, str]
    """The values of the labels that the rows were asked by."""
    requests: int
    errors: int
    cancelled: int
    ttft_p50_s: Seconds | None
    ttft_p95_s: Seconds | None
    itl_p50_s: Seconds | None
    itl_p95_s: Seconds | None
    tpot_p50_s: Seconds | None
    prompt_tokens: int
    output_tokens: int
    busy_s: Seconds
    """Wall clock while at least one request of the row was at an engine."""
    output_tokens_per_s: float | None
    """Output tokens over `busy_s`."""
    active_joules: Joules | None
    joules_per_output_token: float | None
    """Active joules over output tokens: idle energy not included."""
    scopes: Sequence[str]
    """What the meters behind the joules cover; `estimated`: no hardware counter."""
    memory_bytes: int | None
    """Of all replicas of the row, whatever adapter."""
    size_bytes: int | None
    bits_per_weight: float | None


@dataclass(slots=True)
class _Sums:
    requests: Counter[str] = field(default_factory=Counter)
    tokens: Counter[str] = field(default_factory=Counter)
    histograms: dict[str, HistogramRow] = field(default_factory=dict)
    busy: Spans = field(default_factory=Spans)
    energy: Microjoules | None = None
    scopes: set[str] = field(default_factory=set)


def summarize(
    traffic: TrafficNow,
    energy: EnergyFigures | None,
    replicas: Sequence[Replica],
    by: Sequence[str] = ("variant", "adapter"),
) -> list[Row]:
    """A row for each value of the labels `by` that had requests at an engine.

    `by` is any choice of engine, model, variant, precision, adapter; other labels raise `ValueError`.
    """
    if unknown := [label for label in by if label not in CONFIGURATION]:
        raise ValueError(f"{', '.join(map(repr, unknown))} is none of {', '.join(CONFIGURATION)}")
    groups = _Groups([CONFIGURATION.index(label) for label in by])
    groups.add_traffic(traffic)
    if energy is not None:
        groups.add_energy(energy)
    return [
        _row(dict(zip(by, key, strict=True)), sums, replicas)
        for key, sums in sorted(groups.sums.items())
        if sums.requests
    ]


class _Groups:
    """Sums by the labels at `places`."""

    def __init__(self, places: Sequence[int]) -> None:
        self._places = places
        self.sums: defaultdict[tuple[str, ...], _Sums] = defaultdict(_Sums)

    def add_traffic(self, traffic: TrafficNow) -> None:
        for labels, count in traffic.requests.items():
            if labels[0] != NONE:
                self._of(labels).requests[labels[-1]] += count
        for labels, count in traffic.tokens.items():
            self._of(labels).tokens[labels[-1]] += count
        for name in _EDGES:
            for labels, row in traffic.histograms[name].items():
                known = self._of(labels).histograms
                known[name] = known[name] + row if name in known else row
        for labels, spans in traffic.busy.items():
            sums = self._of(labels)
            sums.busy = sums.busy + spans

    def add_energy(self, energy: EnergyFigures) -> None:
        for (_device, scope, *labels, account, _phase), amount in energy.accounts.items():
            if account == "active":
                sums = self._of(labels)
                sums.energy = Microjoules((sums.energy or 0) + amount)
                sums.scopes.add(scope)

    def _of(self, labels: Sequence[str]) -> _Sums:
        return self.sums[tuple(labels[place] for place in self._places)]


def _row(group: Mapping[str, str], sums: _Sums, replicas: Sequence[Replica]) -> Row:
    members = [replica for replica in replicas if _is_in(replica, group)]
    cards = [replica.card for replica in members if replica.card is not None]
    output, busy = sums.tokens["output"], sums.busy.covered()
    joules = None if sums.energy is None else Joules(sums.energy / 1e6)
    return Row(
        group=group,
        requests=sums.requests.total(),
        errors=sum(count for outcome, count in sums.requests.items() if outcome in _ERRORS),
        cancelled=sums.requests[Outcome.CANCELLED.value],
        ttft_p50_s=_quantile(sums, TTFT, 0.5),
        ttft_p95_s=_quantile(sums, TTFT, 0.95),
        itl_p50_s=_quantile(sums, ITL, 0.5),
        itl_p95_s=_quantile(sums, ITL, 0.95),
        tpot_p50_s=_quantile(sums, TPOT, 0.5),
        prompt_tokens=sums.tokens["prompt"],
        output_tokens=output,
        busy_s=busy,
        output_tokens_per_s=output / busy if output and busy else None,
        active_joules=joules,
        joules_per_output_token=joules / output if joules is not None and output else None,
        scopes=sorted(sums.scopes),
        memory_bytes=_sum_if_known(replica.memory_bytes for replica in members),
        size_bytes=_only(card.size_bytes for card in cards),
        bits_per_weight=_only(card.bits_per_weight for card in cards),
    )


def _is_in(replica: Replica, group: Mapping[str, str]) -> bool:
    own = {"engine": replica.name, "model": replica.model, "variant": replica.variant, "precision": replica.precision}
    return all(own.get(label, value) == value for label, value in group.items())


def _quantile(sums: _Sums, name: str, q: float) -> Seconds | None:
    row = sums.histograms.get(name)
    value = quantile(_EDGES[name], row.counts, q) if row else None
    return None if value is None else Seconds(value)


def _sum_if_known(values: Iterable[int | None]) -> int | None:
    known = list(values)
    return sum(value for value in known if value is not None) if known and None not in known else None


def _only(values: Iterable[_T]) -> _T | None:
    """The value if all are equal."""
    different = set(values)
    return different.pop() if len(different) == 1 else None
