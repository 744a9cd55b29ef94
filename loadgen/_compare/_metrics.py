"""The metrics that are compared: where a run's summary has each, and which way is better."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

__all__ = ["DEFAULT_METRICS", "METRICS", "Loop", "Metric"]

Loop = Literal["closed", "open"]

_BOTH: Final[tuple[Loop, ...]] = ("closed", "open")
_CLOSED: Final[tuple[Loop, ...]] = ("closed",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One figure of a run."""

    title: str
    """In a sentence, after a ratio and the word "times"."""
    unit: str
    keys: tuple[str, ...]
    """Its place in a model's entry of summary.json; empty: `_reading.py` computes it."""
    higher_is_better: bool = False
    loops: tuple[Loop, ...] = _BOTH
    """In open loop the schedule decides the throughput: comparing it would compare the schedule with itself."""

    @property
    def validity(self) -> str:
        """The name under which a model's `validity` judges it."""
        return self.keys[0] if self.keys else ""


def _latency(title: str, key: str, percentile: str) -> Metric:
    return Metric(title=f"{title} {percentile}", unit="s", keys=(key, percentile))


METRICS: Final[Mapping[str, Metric]] = {
    "tokens_per_s": Metric(
        title="tokens/s", unit="tokens/s", keys=("output_tokens_per_s",), higher_is_better=True, loops=_CLOSED
    ),
    "requests_per_s": Metric(
        title="requests/s", unit="requests/s", keys=("requests_per_s",), higher_is_better=True, loops=_CLOSED
    ),
    "goodput": Metric(title="goodput", unit="requests/s", keys=("goodput", "requests_per_s"), higher_is_better=True),
    "joules_per_token": Metric(title="J/token", unit="J", keys=()),
    "joules_per_request": Metric(title="J/request", unit="J", keys=()),
    "co2e_per_1k_tokens": Metric(title="gCO2e/1,000 tokens", unit="g", keys=()),
    "ttft_p50": _latency("TTFT", "time_to_first_token_s", "p50"),
    "ttft_p95": _latency("TTFT", "time_to_first_token_s", "p95"),
    "ttft_p99": _latency("TTFT", "time_to_first_token_s", "p99"),
    "itl_p50": _latency("ITL", "inter_token_latency_s", "p50"),
    "itl_p95": _latency("ITL", "inter_token_latency_s", "p95"),
    "itl_p99": _latency("ITL", "inter_token_latency_s", "p99"),
    "tpot_p50": _latency("TPOT", "time_per_output_token_s", "p50"),
    "tpot_p95": _latency("TPOT", "time_per_output_token_s", "p95"),
    "e2e_p50": _latency("end-to-end", "end_to_end_s", "p50"),
    "e2e_p95": _latency("end-to-end", "end_to_end_s", "p95"),
    "e2e_p99": _latency("end-to-end", "end_to_end_s", "p99"),
}

DEFAULT_METRICS: Final = ("tokens_per_s", "joules_per_token", "ttft_p50", "ttft_p95", "itl_p50", "itl_p95", "e2e_p95")
"""Each further one makes Holm's correction stricter for all."""
