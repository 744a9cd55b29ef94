"""The tabs' columns, in the words of Locust's page."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from loadgen._report import NOT_SAID
from loadgen._ui._row import Row

__all__ = ["TABS", "Column", "Tab", "shown"]

Cell = float | int | str


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A heading, and a row's value under it; None is shown as n/a."""

    key: str
    title: str
    value: Callable[[Row], Cell | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tab:
    """A table; `key` stands in the page's address, as `?tab=`."""

    key: str
    title: str
    columns: tuple[Column, ...]


def _milliseconds(seconds: float | None) -> float | None:
    if seconds is None:
        return None
    digits = 3 if seconds < 0.001 else 1
    return round(seconds * 1000, digits if seconds < 0.1 else None)


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


_WHO: Final = (
    Column(key="model", title="Model", value=lambda row: row.model),
    Column(key="requests", title="Requests", value=lambda row: row.requests),
    Column(key="ok", title="OK", value=lambda row: row.ok),
    Column(key="errors", title="Errors", value=lambda row: row.errors),
)

TABS: Final = (
    Tab(
        key="load-latency",
        title="TTFT and TPOT",
        columns=(
            *_WHO,
            Column(key="ttft_median", title="TTFT p50 (ms)", value=lambda row: _milliseconds(row.ttft_p50_s)),
            Column(key="ttft_tail", title="TTFT p95 (ms)", value=lambda row: _milliseconds(row.ttft_p95_s)),
            Column(key="itl_tail", title="ITL p95 (ms)", value=lambda row: _milliseconds(row.itl_p95_s)),
            Column(key="tpot_median", title="TPOT p50 (ms)", value=lambda row: _milliseconds(row.tpot_p50_s)),
            Column(key="tpot_tail", title="TPOT p95 (ms)", value=lambda row: _milliseconds(row.tpot_p95_s)),
        ),
    ),
    Tab(
        key="load-goodput",
        title="Goodput",
        columns=(
            *_WHO,
            Column(
                key="attainment",
                title="Within the SLO (%)",
                value=lambda row: None if row.attainment is None else round(100 * row.attainment, 1),
            ),
            Column(
                key="good_requests", title="Good requests/s", value=lambda row: _rounded(row.good_requests_per_s, 2)
            ),
            Column(
                key="good_tokens",
                title="Their output tokens/s",
                value=lambda row: _rounded(row.good_output_tokens_per_s, 1),
            ),
            Column(key="tokens", title="All output tokens/s", value=lambda row: _rounded(row.output_tokens_per_s, 1)),
        ),
    ),
    Tab(
        key="load-joules",
        title="J/token",
        columns=(
            *_WHO,
            Column(key="tokens", title="Output tokens/s", value=lambda row: _rounded(row.output_tokens_per_s, 1)),
            Column(
                key="joules", title="J per output token", value=lambda row: _rounded(row.joules_per_output_token, 4)
            ),
        ),
    ),
)


def shown(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Every tab's lines, as Locust's page takes them beside its own statistics."""
    rows = list(rows)
    return [{"key": tab.key, "data": [_line(tab, number, row) for number, row in enumerate(rows)]} for tab in TABS]


def _line(tab: Tab, number: int, row: Row) -> Mapping[str, Cell]:
    cells = {column.key: column.value(row) for column in tab.columns}
    # The page sorts by `name` until somebody clicks on a heading; no column has it, so the order is ours.
    return {"name": f"{number:05d}", **{key: NOT_SAID if cell is None else cell for key, cell in cells.items()}}
