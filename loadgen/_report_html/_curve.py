"""Rate against latency, where a run was a search over several rates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from loadgen._report import milliseconds
from loadgen._report_html._chart import Axis, Chart, Series

__all__ = ["curve_charts", "curve_table"]

_MS: Final = 1000.0
_SHOWN: Final = (
    ("TTFT", "time_to_first_token_s"),
    ("ITL", "inter_token_latency_s"),
)


def curve_charts(curve: Mapping[str, Any]) -> Iterator[Chart]:
    """One chart a latency; the levels are those of curve.json, requests a second or in flight."""
    levels: Sequence[Mapping[str, Any]] = curve.get("levels") or ()
    axis = _axis(curve)
    for title, key in _SHOWN:
        series = []
        for number, percentile in enumerate(("p50", "p95")):
            points = [
                (float(level["level"]), value * _MS)
                for level in levels
                if (value := _of(level, key, percentile)) is not None
            ]
            series.append(Series(name=percentile, points=sorted(points), colour=number, mark="line and points"))
        if any(one.points for one in series):
            yield Chart(
                title=f"{title} against load",
                x=Axis(label=axis, from_zero=True),
                y=Axis(label=f"{title}, ms", logarithmic=True),
                series=series,
                note=_best(curve, axis),
            )


def curve_table(curve: Mapping[str, Any]) -> tuple[tuple[str, ...], list[tuple[str, ...]]] | None:
    """Headings and rows; None where there is no curve."""
    rows: list[tuple[str, ...]] = [
        (
            f"{level['level']:g}",
            milliseconds(_of(level, "time_to_first_token_s", "p95")),
            milliseconds(_of(level, "inter_token_latency_s", "p95")),
            "holds" if level.get("passed") else str(level.get("why") or "does not hold"),
        )
        for level in sorted(curve.get("levels") or (), key=lambda level: float(level["level"]))
    ]
    headings = (_axis(curve), "TTFT p95 (ms)", "ITL p95 (ms)", "verdict")
    return (headings, rows) if rows else None


def _axis(curve: Mapping[str, Any]) -> str:
    return "requests in flight" if curve.get("axis") == "concurrency" else "requests a second"


def _of(level: Mapping[str, Any], key: str, percentile: str) -> float | None:
    """Figures of a level: a distribution, or flat `ttft_p95_s` names."""
    found = level.get(key) or (level.get("figures") or {}).get(key)
    value = found.get(percentile) if isinstance(found, Mapping) else None
    if value is None:
        short = {"time_to_first_token_s": "ttft", "inter_token_latency_s": "itl"}[key]
        value = level.get(f"{short}_{percentile}_s")
    return float(value) if value is not None else None


def _best(curve: Mapping[str, Any], axis: str) -> str:
    best = curve.get("best")
    return f"The most that was sustained: {best:g} {axis}." if isinstance(best, int | float) else ""
