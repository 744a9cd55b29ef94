"""What a run's folder holds, as far as it is there."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from loadgen._histogram import Histogram

__all__ = ["RunFolder", "joules_per_token", "read_folder"]

_NO_ADAPTER: Final = "none"

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFolder:
    """Parsed files; an empty mapping where one is missing."""

    name: str
    summary: Mapping[str, Any]
    timeseries: Mapping[str, Any]
    histograms: Mapping[str, Any]
    curve: Mapping[str, Any]

    @property
    def models(self) -> Sequence[Mapping[str, Any]]:
        return self.summary.get("models") or ()

    def cdf(self, model: str, metric: str) -> Points:
        """(seconds, share) of one latency; empty if unknown."""
        found = (self.histograms.get("models") or {}).get(model, {}).get(metric)
        return Histogram.from_json(found).cdf() if found else []

    def column(self, model: str, name: str) -> Points:
        """(seconds since the start, value) of the run second by second; seconds without a value are left out."""
        series = (self.timeseries.get("models") or {}).get(model, {}).get(name) or []
        times = self.timeseries.get("time_s") or []
        return [(at, value) for at, value in zip(times, series, strict=False) if value is not None]


def read_folder(folder: Path) -> RunFolder:
    return RunFolder(
        name=folder.resolve().name,
        summary=_read(folder / "summary.json"),
        timeseries=_read(folder / "timeseries.json"),
        histograms=_read(folder / "histograms.json"),
        curve=_read(folder / "curve.json"),
    )


def joules_per_token(energy: Mapping[str, Any], model: str) -> float | None:
    """Active joules an output token of one model id, by `energy` of summary.json; None if nothing is known.

    Of the measured requests alone where the ledger has them; else of the whole run, warm-up and drain on both sides of
    the ratio.
    """
    of_requests = ((energy.get("models") or {}).get(model) or {}).get("joules_per_output_token")
    if of_requests is not None:
        return float(of_requests)
    name, _, variant = model.rpartition(":")
    uses = [
        use
        for use in energy.get("uses") or ()
        if use["variant"] == variant and name == (use["model"] if use["adapter"] == _NO_ADAPTER else use["adapter"])
    ]
    joules, tokens = sum(use["active_joules"] for use in uses), sum(use["output_tokens"] for use in uses)
    return joules / tokens if joules > 0 and tokens > 0 else None


def _read(file: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
