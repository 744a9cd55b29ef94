"""What the devices of an engine can do at most: as configured, else from the table of GPUs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from server.config.efficiency import PeakSettings
from server.efficiency.facts import EngineFacts
from server.efficiency.use import gpus_of
from server.fleet import Replica
from server.models.hardware import HardwarePeaks, arithmetic_of, peaks_of

__all__ = ["Peak", "Peaks"]

_CONFIGURED: Final = "efficiency.peaks"


@dataclass(frozen=True, slots=True, kw_only=True)
class Peak:
    """Of all devices of an engine together; None is unknown."""

    flops_per_s: float | None = None
    """Of the arithmetic that the engine computes in."""
    bytes_per_s: float | None = None
    source: str | None = None


class Peaks:
    """Never guesses: a GPU that stands in no table has no peak. Cheap: a look into dictionaries."""

    def __init__(self, configured: Mapping[str, PeakSettings], gpu_name: Callable[[int], str | None]) -> None:
        self._configured = configured
        self._gpu_name = gpu_name

    def of(self, replica: Replica, facts: EngineFacts) -> Peak:
        """By the engine's name, by its devices' names, by their make; for either rate the first that is known."""
        known = [self._by_engine(replica), self._by_devices(replica), self._by_table(replica, facts)]
        flops = next((peak for peak in known if peak.flops_per_s is not None), Peak())
        rate = next((peak for peak in known if peak.bytes_per_s is not None), Peak())
        sources = dict.fromkeys(source for source in (flops.source, rate.source) if source)
        return Peak(
            flops_per_s=flops.flops_per_s, bytes_per_s=rate.bytes_per_s, source="; ".join(sources) if sources else None
        )

    def _by_engine(self, replica: Replica) -> Peak:
        found = self._configured.get(replica.name) or self._configured.get(replica.device)
        return Peak() if found is None else _configured(found)

    def _by_devices(self, replica: Replica) -> Peak:
        found = [self._configured.get(f"gpu:{index}") for index in gpus_of(replica)]
        if not found or None in found:
            return Peak()
        flops = [peak.flops_per_s for peak in found if peak is not None]
        rates = [peak.bytes_per_s for peak in found if peak is not None]
        return Peak(flops_per_s=_sum(flops), bytes_per_s=_sum(rates), source=_CONFIGURED)

    def _by_table(self, replica: Replica, facts: EngineFacts) -> Peak:
        names = {self._gpu_name(index) for index in gpus_of(replica)}
        name = names.pop() if len(names) == 1 else None
        peaks = None if name is None else peaks_of(name)
        if peaks is None:
            return Peak()
        together = peaks.times(len(gpus_of(replica)))
        return Peak(
            flops_per_s=_flops(replica, facts, together), bytes_per_s=together.bytes_per_s, source=together.source
        )


def _configured(settings: PeakSettings) -> Peak:
    return Peak(flops_per_s=settings.flops_per_s, bytes_per_s=settings.bytes_per_s, source=_CONFIGURED)


def _flops(replica: Replica, facts: EngineFacts, peaks: HardwarePeaks) -> float | None:
    arithmetic = None if replica.card is None else arithmetic_of(replica.card, peaks, dtype=facts.dtype)
    return None if arithmetic is None else peaks.flops_per_s.get(arithmetic)


def _sum(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None
