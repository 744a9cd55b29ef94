"""One model's line in the tabs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from loadgen._energy import EnergyReport
from loadgen._summary import ALL
from loadgen._ui._joules import joules_per_token, total_joules_per_token
from loadgen._validity import VALID

__all__ = ["Row", "final_rows"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """None: too few samples, not valid, or unknown."""

    model: str
    """`all`: every model together."""
    requests: int
    """Measured: without those of the warm-up."""
    ok: int
    errors: int
    ttft_p50_s: float | None
    """From the scheduled time."""
    ttft_p95_s: float | None
    itl_p95_s: float | None
    tpot_p50_s: float | None
    tpot_p95_s: float | None
    attainment: float | None
    """Good answers by requests; None without an SLO, as the two that follow."""
    good_requests_per_s: float | None
    good_output_tokens_per_s: float | None
    output_tokens_per_s: float | None
    joules_per_output_token: float | None
    """Active energy."""


def final_rows(summary: Mapping[str, Any], energy: EnergyReport | None) -> Iterator[Row]:
    """What summary.json says, and nothing else: a figure that is not valid there is None here."""
    for model in summary["models"]:
        yield _row(model, joules_per_token(energy, model["model"], model["served_by"]))
    yield _row({**summary["totals"], "model": ALL}, total_joules_per_token(energy))


def _row(figures: Mapping[str, Any], joules: float | None) -> Row:
    goodput = figures["goodput"] or {}
    ttft_p50, ttft_p95 = _valid(figures, "time_to_first_token_s", ("p50", "p95"))
    (itl_p95,) = _valid(figures, "inter_token_latency_s", ("p95",))
    tpot_p50, tpot_p95 = _valid(figures, "time_per_output_token_s", ("p50", "p95"))
    return Row(
        model=figures["model"],
        requests=figures["requests"],
        ok=figures["ok"],
        errors=sum(figures["errors"].values()),
        ttft_p50_s=ttft_p50,
        ttft_p95_s=ttft_p95,
        itl_p95_s=itl_p95,
        tpot_p50_s=tpot_p50,
        tpot_p95_s=tpot_p95,
        attainment=goodput.get("attainment"),
        good_requests_per_s=goodput.get("requests_per_s"),
        good_output_tokens_per_s=goodput.get("output_tokens_per_s"),
        output_tokens_per_s=figures["output_tokens_per_s"],
        joules_per_output_token=joules,
    )


def _valid(figures: Mapping[str, Any], name: str, percentiles: Iterable[str]) -> list[float | None]:
    verdict = figures["validity"].get(name)
    if verdict is not None and verdict["verdict"] != VALID:
        return [None for _ in percentiles]
    return [figures[name][percentile] for percentile in percentiles]
