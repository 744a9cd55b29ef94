"""What an engine's checkpoint loses against its reference, for the exposition."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from server.models.quality import Quality
from server.telemetry.sources import Sample

__all__ = ["loss_samples"]

_GAUGES: Final[Mapping[str, str]] = {
    "perplexity_ratio": "wattgate_quality_perplexity_ratio",
    "kl_nats": "wattgate_quality_kl_nats",
    "top1_agreement_ratio": "wattgate_quality_top1_agreement_ratio",
}
"""By the score's metric."""


def loss_samples(engine: tuple[str, ...], qualities: Sequence[Quality]) -> Iterator[Sample]:
    """Of one engine, by its labels: each score that compares with a reference, and when each text was measured."""
    measured: dict[tuple[str, ...], str] = {}
    for quality in qualities:
        name = _GAUGES.get(quality.metric)
        if name is not None:
            yield name, (*engine, quality.dataset, quality.path), quality.value
        measured[quality.dataset, quality.path] = quality.measured_at or ""
    for (dataset, path), measured_at in measured.items():
        yield "wattgate_quality_info", (*engine, dataset, path, measured_at), 1
