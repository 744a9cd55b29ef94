"""A run's figures, read from the folder that Locust has written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

from loadgen._compare._metrics import METRICS, Metric
from loadgen._errors import LoadError
from loadgen._report_html._folder import joules_per_token

__all__ = ["Figures", "read_figures"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What is kept of one run."""

    values: Mapping[str, float | None]
    """By metric's name; None: unknown, too few samples, or not valid in this run."""
    requests: int
    failed: int
    """Measured requests that were not answered whole."""
    served_by: tuple[str, ...]
    joules_scopes: tuple[str, ...]
    cached_share: float | None
    """Of the prompt tokens, those that the engine had in its cache."""
    rate_verdict: str
    """Of the run's rate: `invalid` where the achieved one was not the offered one."""
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        values = {field.name: data[field.name] for field in fields(cls)}
        for name in ("served_by", "joules_scopes", "notes"):
            values[name] = tuple(values[name])
        return cls(**values)


def read_figures(folder: Path, model: str) -> Figures:
    """Raises `LoadError` if the run left no whole summary."""
    try:
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        entry = next(of for of in summary["models"] if of["model"] == model)
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise LoadError(f"{folder} has no results ({exc!r})") from exc
    except StopIteration:
        raise LoadError(f"{folder}: not one request asked for {model}") from None
    if summary.get("partial"):
        raise LoadError(f"{folder} is the partial result of an interrupted run")
    energy = summary.get("energy") or {}
    values = {name: _value(entry, metric) for name, metric in METRICS.items()}
    return Figures(
        values={**values, **_energy(energy, model, entry)},
        requests=int(entry["requests"]),
        failed=sum(entry["errors"].values()),
        served_by=tuple(entry["served_by"]),
        joules_scopes=tuple(energy.get("scopes") or ()),
        cached_share=_cached_share(entry),
        rate_verdict=str(((summary.get("validity") or {}).get("rate") or {}).get("verdict", "valid")),
        notes=tuple(str(note) for note in summary.get("notes") or ()),
    )


def _value(entry: Mapping[str, Any], metric: Metric) -> float | None:
    verdict = (entry.get("validity") or {}).get(metric.validity) or {}
    if not metric.keys or verdict.get("verdict", "valid") != "valid":
        return None
    found: Any = entry
    for key in metric.keys:
        found = found.get(key) if isinstance(found, Mapping) else None
    return float(found) if isinstance(found, int | float) else None


def _energy(energy: Mapping[str, Any], model: str, entry: Mapping[str, Any]) -> dict[str, float | None]:
    a_token = joules_per_token(energy, model)
    tokens = entry["output_tokens"] / entry["ok"] if entry["ok"] else None
    co2e = ((energy.get("models") or {}).get(model) or {}).get("co2e_grams_per_1k_output_tokens")
    return {
        "joules_per_token": a_token,
        "joules_per_request": a_token * tokens if a_token is not None and tokens is not None else None,
        "co2e_per_1k_tokens": float(co2e) if co2e is not None else None,
    }


def _cached_share(entry: Mapping[str, Any]) -> float | None:
    cached, prompt = entry.get("cached_tokens"), entry.get("prompt_tokens")
    return cached / prompt if cached is not None and prompt else None
