"""Puts together what belongs to one row: its engines, their time, their requests, their energy."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import reduce
from operator import add
from typing import Final

from server.efficiency.facts import EngineFacts
from server.efficiency.history import UNSEEN, EngineTotals, Span
from server.efficiency.peaks import Peak
from server.efficiency.served import NOTHING, Configuration, Served
from server.fleet import Replica
from server.models.card import ModelCard
from server.models.flops import PhaseFlops
from server.telemetry.histogram import HistogramRow
from server.telemetry.labels import NONE
from server.telemetry.metric import CONFIGURATION
from server.telemetry.spans import Spans
from server.telemetry.traffic import TrafficNow
from server.units import Seconds

__all__ = ["Group", "Member", "Part", "Seen", "groups_of", "labels_of"]

_PLAIN: Final = ("bf16", "fp16", "fp32")
"""Precisions that a reference may have, the best first."""
_ADAPTER: Final = CONFIGURATION.index("adapter")


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One engine of a row."""

    replica: Replica
    facts: EngineFacts
    peak: Peak

    @property
    def card(self) -> ModelCard | None:
        return self.replica.card


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One engine of a row, and what it did in the span, for all its adapters."""

    member: Member
    totals: EngineTotals
    served: Served

    @property
    def flops(self) -> PhaseFlops | None:
        """That its tokens needed, by our model of the architecture; None: there is no model of it."""
        work = self.member.facts.work
        return None if work is None else work.flops.flops(self.served.work)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """All that rows are made of, at one moment."""

    members: Sequence[Member]
    span: Span
    over: str
    """In words: `in the last 60 s`."""
    scopes: Mapping[str, AbstractSet[str]]
    """By engine: what the meters behind its joules cover."""
    traffic: TrafficNow | None
    """Since the control plane started; None: nobody will ask for what comes from it."""
    grams: Mapping[Configuration, float] | None
    """gCO₂e since the control plane started."""
    has_slo: bool


@dataclass(slots=True, kw_only=True)
class Group:
    """One row's part of `Seen`."""

    labels: Mapping[str, str]
    by_adapter: bool
    over: str
    has_slo: bool
    seconds: Seconds
    reference: Member | None
    """What sizes and quality are compared with: the model's bf16 variant, else fp16, fp32, else its first."""
    metered_s: Seconds | None
    parts: list[Part] = field(default_factory=list)
    served: Served = NOTHING
    metered_served: Served = NOTHING
    energy: Counter[str] = field(default_factory=Counter)
    """µJ by account, over `metered_s`."""
    unmetered: list[str] = field(default_factory=list)
    """Engines for which no meter has counted anything."""
    scopes: set[str] = field(default_factory=set)
    histograms: dict[str, HistogramRow] = field(default_factory=dict)
    """By metric; since the control plane started, like the following."""
    busy: Spans = field(default_factory=Spans)
    busy_tokens: int = 0
    grams: float | None = None

    @property
    def members(self) -> list[Member]:
        return [part.member for part in self.parts]

    @property
    def totals(self) -> EngineTotals:
        return reduce(add, (part.totals for part in self.parts), UNSEEN)

    @property
    def scope(self) -> str | None:
        """In words: what the meters behind its joules cover."""
        return f"scope: {', '.join(sorted(self.scopes))}" if self.scopes else None

    @property
    def cards(self) -> list[ModelCard]:
        """Those of all members; none if one of them is unknown."""
        cards = [member.card for member in self.members if member.card is not None]
        return cards if len(cards) == len(self.members) else []

    @property
    def running(self) -> bool:
        """Requests run at an engine of the row, as it says."""
        return any(bool(member.replica.gauges and member.replica.gauges.running) for member in self.members)


def labels_of(by: Sequence[str]) -> tuple[str, ...]:
    """The labels of the rows: those asked for and `model`, without which nothing can be compared.

    Raises `ValueError` for what is no label of a configuration, and for none at all.
    """
    unknown = [label for label in by if label not in CONFIGURATION]
    if unknown or not by:
        raise ValueError(f"{', '.join(map(repr, unknown)) or 'nothing'} is none of {', '.join(CONFIGURATION)}")
    return tuple(label for label in CONFIGURATION if label in by or label == "model")


def groups_of(seen: Seen, by: Sequence[str]) -> list[Group]:
    """A group for each value of the labels `by` that a replica has or that had requests, in the replicas' order."""
    return list(_Grouping(seen, labels_of(by)).groups().values())


class _Grouping:
    def __init__(self, seen: Seen, labels: Sequence[str]) -> None:
        self._seen = seen
        self._labels = labels
        self._places = [CONFIGURATION.index(label) for label in labels]
        self._by_adapter = "adapter" in labels
        self._references = _references(seen.members)
        self._groups: dict[tuple[str, ...], Group] = {}

    def groups(self) -> dict[tuple[str, ...], Group]:
        self._add_members()
        self._add_served()
        self._add_energy()
        if self._seen.traffic is not None:
            self._add_traffic(self._seen.traffic)
        for key, group in self._existing(self._seen.grams or {}):
            group.grams = (group.grams or 0.0) + (self._seen.grams or {})[key]
        return self._groups

    def _add_members(self) -> None:
        adapters: defaultdict[str, dict[str, None]] = defaultdict(lambda: {NONE: None})
        served: defaultdict[str, Served] = defaultdict(lambda: NOTHING)
        for key, amount in self._seen.span.served.items():
            adapters[key[0]][key[_ADAPTER]] = None
            served[key[0]] = served[key[0]] + amount
        for member in self._seen.members:
            replica = member.replica
            totals = self._seen.span.engines.get(replica.name, UNSEEN)
            part = Part(member=member, totals=totals, served=served[replica.name])
            known = dict.fromkeys([*adapters[replica.name], *sorted(replica.adapters)])
            for adapter in known if self._by_adapter else (NONE,):
                group = self._of((replica.name, replica.model, replica.variant, replica.precision, adapter))
                group.parts.append(part)

    def _add_served(self) -> None:
        span = self._seen.span
        for key, group in self._existing(span.served):
            group.served = group.served + span.served[key]
        if span.metered is not None:
            for key, group in self._existing(span.metered.served):
                group.metered_served = group.metered_served + span.metered.served[key]

    def _add_energy(self) -> None:
        metered = self._seen.span.metered
        for (*key, account), amount in (metered.energy if metered else {}).items():
            for _, group in self._existing([tuple(key)]):
                group.energy[account] += amount
        counted = {key[0] for key in metered.energy} if metered else set()
        for group in self._groups.values():
            names = [member.replica.name for member in group.members]
            group.unmetered = [name for name in names if name not in counted]
            group.scopes = {scope for name in names for scope in self._seen.scopes.get(name, ())}

    def _add_traffic(self, traffic: TrafficNow) -> None:
        for name, rows in traffic.histograms.items():
            for key, group in self._existing(rows):
                known = group.histograms
                known[name] = known[name] + rows[key] if name in known else rows[key]
        for key, group in self._existing(traffic.busy):
            group.busy = group.busy + traffic.busy[key]
        for labels, tokens in traffic.tokens.items():
            for _, group in self._existing([labels[:-1]]):
                group.busy_tokens += tokens * (labels[-1] == "output")

    def _existing(self, keys: Iterable[Configuration]) -> Iterator[tuple[Configuration, Group]]:
        for key in keys:
            if len(key) != len(CONFIGURATION):  # of a histogram with other labels
                continue
            group = self._groups.get(tuple(key[place] for place in self._places))
            if group is not None:
                yield key, group

    def _of(self, key: Configuration) -> Group:
        values = tuple(key[place] for place in self._places)
        group = self._groups.get(values)
        if group is None:
            span = self._seen.span
            group = self._groups[values] = Group(
                labels=dict(zip(self._labels, values, strict=True)),
                by_adapter=self._by_adapter,
                over=self._seen.over,
                has_slo=self._seen.has_slo,
                seconds=span.seconds,
                reference=self._references.get(key[1]),
                metered_s=span.metered.until if span.metered else None,
            )
        return group


def _references(members: Sequence[Member]) -> dict[str, Member]:
    """By model."""
    of_model: defaultdict[str, list[Member]] = defaultdict(list)
    for member in members:
        of_model[member.replica.model].append(member)
    return {model: min(several, key=lambda member: _rank(member.replica)) for model, several in of_model.items()}


def _rank(replica: Replica) -> int:
    return _PLAIN.index(replica.precision) if replica.precision in _PLAIN else len(_PLAIN)
