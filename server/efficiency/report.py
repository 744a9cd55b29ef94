"""The table of all measures over all configurations, and the samples for the exposition."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from server.config.efficiency import EfficiencySettings
from server.efficiency.companions import COMPANIONS
from server.efficiency.facts import EngineFacts
from server.efficiency.figure import Figure, Measure, Section
from server.efficiency.groups import Group, Member, Seen, groups_of, labels_of
from server.efficiency.losses import loss_samples
from server.efficiency.paper import PAPER
from server.efficiency.peaks import Peaks
from server.efficiency.ranks import PARETO_AXES, front, ranks
from server.efficiency.sampler import Sampled, Sampler
from server.efficiency.served import Configuration
from server.efficiency.utilization import UTILIZATION
from server.fleet import Replica
from server.telemetry.metric import CONFIGURATION, ENGINE
from server.telemetry.sources import Sample
from server.telemetry.traffic import TrafficNow

__all__ = ["MEASURES", "Efficiency", "Over", "ReportSources"]

Over = Literal["window", "start"]
"""The last `efficiency.window_s`, or since the control plane started."""

MEASURES: Final[tuple[Measure, ...]] = tuple(
    measure for section in Section for measure in (*PAPER, *COMPANIONS, *UTILIZATION) if measure.section is section
)

_NO_FACTS: Final = EngineFacts()
_GAUGES: Final[Mapping[str, str]] = {
    "amu_ratio": "wattgate_efficientllm_amu_ratio",
    "pcu_ratio": "wattgate_efficientllm_pcu_ratio",
    "aec_w": "wattgate_efficientllm_aec_watts",
    "mfu_ratio": "wattgate_mfu_ratio",
    "mbu_ratio": "wattgate_mbu_ratio",
}
"""Of engines."""
_GAUGES_OF_CONFIGURATIONS: Final[Mapping[str, str]] = {
    "al_s": "wattgate_efficientllm_al_seconds",
    "at_tokens_per_s": "wattgate_efficientllm_at_tokens_per_second",
}
_BY_KEY: Final = {measure.key: measure for measure in MEASURES}


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportSources:
    """What a table is made of, besides what the sampler has seen. Called on the thread that asks."""

    replicas: Callable[[], Sequence[Replica]]
    traffic: Callable[[], TrafficNow]
    facts: Mapping[str, EngineFacts]
    """By engine."""
    carbon: Callable[[], Mapping[Configuration, float] | None] | None = None
    """gCO₂e of each configuration since the control plane started; None: unknown."""


class Efficiency:
    """Answers whoever asks, on any thread."""

    def __init__(self, settings: EfficiencySettings, sampler: Sampler, sources: ReportSources, peaks: Peaks) -> None:
        self._settings = settings
        self._sampler = sampler
        self._sources = sources
        self._peaks = peaks

    def table(self, by: Sequence[str], over: Over = "window") -> dict[str, Any]:
        """Rows as plain JSON: each measure's value, rank (1 is best), unit, and why it is absent.

        `by` is any choice of engine, model, variant, precision, adapter; other labels raise `ValueError`. Ranks are
        among the rows of one model.
        """
        labels = labels_of(by)
        groups = self._groups(labels, over, self._sampler.sampled(), self._sources.traffic())
        figures = [{measure.key: measure.figure(group) for measure in MEASURES} for group in groups]
        ranked, fronts = _ranks(groups, figures), _fronts(groups, figures)
        return {
            "by": list(labels),
            "over": over,
            "window_s": self._settings.window_s,
            "seconds": round(groups[0].seconds, 3) if groups else None,
            "measures": [_measure(measure) for measure in MEASURES],
            "pareto_axes": {model: list(axes) for model, (axes, _) in fronts.items()},
            "rows": [
                {
                    "group": dict(group.labels),
                    "pareto": fronts[group.labels["model"]][1][id(group)],
                    "energy_scopes": sorted(group.scopes),
                    "values": {key: _cell(_BY_KEY[key], figure, ranked[id(group), key]) for key, figure in row.items()},
                }
                for group, row in zip(groups, figures, strict=True)
            ],
        }

    def samples(self) -> Iterator[Sample]:
        """For the exposition: the six metrics, utilization, quality, and FLOPs since the control plane started."""
        sampled = self._sampler.sampled()
        for group in self._groups(ENGINE, "window", sampled):
            labels = tuple(group.labels[label] for label in ENGINE)
            for key, name in _GAUGES.items():
                yield name, labels, _BY_KEY[key].figure(group).value
            rate = _BY_KEY["mcr_ratio"].figure(group)
            yield "wattgate_efficientllm_mcr_ratio", (*labels, rate.note or ""), rate.value
            for member in group.members:
                yield from loss_samples(labels, member.facts.qualities)
        for group in self._groups(CONFIGURATION, "window", sampled):
            labels = tuple(group.labels[label] for label in CONFIGURATION)
            for key, name in _GAUGES_OF_CONFIGURATIONS.items():
                yield name, labels, _BY_KEY[key].figure(group).value
        for group in self._groups(ENGINE, "start", sampled):
            labels = tuple(group.labels[label] for label in ENGINE)
            for flops in [part.flops for part in group.parts if part.flops is not None]:
                yield "wattgate_model_flops_total", (*labels, "prefill"), flops.prefill
                yield "wattgate_model_flops_total", (*labels, "decode"), flops.decode

    def _groups(
        self, by: Sequence[str], over: Over, sampled: Sampled, traffic: TrafficNow | None = None
    ) -> list[Group]:
        span = sampled.window if over == "window" else sampled.start
        if span is None:
            return []
        carbon = self._sources.carbon
        seen = Seen(
            members=[self._member(replica) for replica in self._sources.replicas()],
            span=span,
            over=f"in the last {span.seconds:.0f} s" if over == "window" else "since the start",
            scopes=sampled.scopes,
            traffic=traffic,
            grams=carbon() if carbon is not None and traffic is not None else None,
            has_slo=self._settings.slo is not None,
        )
        return groups_of(seen, by)

    def _member(self, replica: Replica) -> Member:
        facts = self._sources.facts.get(replica.name, _NO_FACTS)
        return Member(replica=replica, facts=facts, peak=self._peaks.of(replica, facts))


def _ranks(groups: Sequence[Group], figures: Sequence[Mapping[str, Figure]]) -> dict[tuple[int, str], int | None]:
    """By group and measure."""
    found: dict[tuple[int, str], int | None] = {}
    for places in _of_models(groups).values():
        for measure in MEASURES:
            order = ranks([figures[place][measure.key].value for place in places], measure.better)
            found |= {(id(groups[place]), measure.key): rank for place, rank in zip(places, order, strict=True)}
    return found


def _fronts(
    groups: Sequence[Group], figures: Sequence[Mapping[str, Figure]]
) -> dict[str, tuple[tuple[str, ...], dict[int, bool | None]]]:
    """By model: the axes, and of each group whether it is on the front."""
    found = {}
    for model, places in _of_models(groups).items():
        best = front([{axis: figures[place][axis].value for axis in PARETO_AXES} for place in places])
        found[model] = best.axes, {id(groups[p]): on_it for p, on_it in zip(places, best.on_it, strict=True)}
    return found


def _of_models(groups: Sequence[Group]) -> Mapping[str, list[int]]:
    places: defaultdict[str, list[int]] = defaultdict(list)
    for place, group in enumerate(groups):
        places[group.labels["model"]].append(place)
    return places


def _cell(measure: Measure, figure: Figure, rank: int | None) -> dict[str, Any]:
    cell: dict[str, Any] = {"value": figure.value, "unit": measure.unit, "rank": rank}
    if figure.why_absent is not None:
        cell["why_absent"] = figure.why_absent
    if figure.note is not None:
        cell["note"] = figure.note
    return cell


def _measure(measure: Measure) -> dict[str, Any]:
    return {
        "key": measure.key,
        "title": measure.title,
        "unit": measure.unit,
        "better": measure.better,
        "section": measure.section,
        "brief": measure.brief,
    }
