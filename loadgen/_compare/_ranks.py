"""What the server itself says of the configurations: quality, ranks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Self

import httpx

from loadgen._compare._plan import ComparePlan
from loadgen._secrets import control_headers

__all__ = ["ServerView", "ask_server"]

_TIMEOUT_S: Final = 10.0
_SHOWN: Final = ("amu_ratio", "pcu_ratio", "al_s", "at_tokens_per_s", "aec_w", "mcr_ratio")
"""The six metrics of EfficientLLM: docs/efficiency.md."""
_NO_ADAPTER: Final = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerView:
    """`GET /api/efficiency` at the end of the runs, by configuration."""

    quality: Mapping[str, float]
    """Against the server's own reference variant: perplexity of the reference / its own, or a ratio of task scores."""
    quality_of: str | None
    """What was measured: metric and data."""
    ranks: Mapping[str, Mapping[str, int]]
    """Configuration → title of the measure → rank; 1 is best."""
    why_none: str | None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        return cls(**data)

    @classmethod
    def none(cls, why: str) -> Self:
        return cls(quality={}, quality_of=None, ranks={}, why_none=why)


def ask_server(plan: ComparePlan, control: str | None) -> ServerView:
    """Never fails: without an answer there are no ranks, and the reason."""
    if control is None:
        return ServerView.none("no control URL was given")
    if plan.restarts:
        return ServerView.none("configurations share an engine that was started anew between runs")
    try:
        return _view(plan, control)
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        return ServerView.none(f"{control}/api/efficiency is of an unknown form ({exc!r})")


def _view(plan: ComparePlan, control: str) -> ServerView:
    by = "variant" if not _adapters(plan, control) else "variant,adapter"
    table = _get(f"{control}/api/efficiency?by={by}&over=start")
    if not table:
        return ServerView.none(f"the control API at {control} gave no table of efficiency")
    rows = {_id(row["group"]): row["values"] for row in table.get("rows", ())}
    titles = {measure["key"]: measure["title"] for measure in table.get("measures", ())}
    mine = {one.name: rows[one.model] for one in plan.configurations if one.model in rows}
    qualities = {
        name: cell for name, values in mine.items() if (cell := values.get("quality_ratio") or {}).get("value")
    }
    labels = {cell.get("note") for cell in qualities.values()}
    return ServerView(
        quality={name: float(cell["value"]) for name, cell in qualities.items()} if len(labels) == 1 else {},
        quality_of=labels.pop() if len(labels) == 1 else None,
        ranks={name: _ranks(values, titles) for name, values in mine.items()},
        why_none=None if mine else "the server does not know these models by variant",
    )


def _ranks(values: Mapping[str, Any], titles: Mapping[str, str]) -> dict[str, int]:
    cells = {titles[key]: values[key]["rank"] for key in _SHOWN if key in values and key in titles}
    return {title: int(rank) for title, rank in cells.items() if rank is not None}


def _id(group: Mapping[str, str]) -> str:
    adapter = group.get("adapter", _NO_ADAPTER)
    return f"{group['model'] if adapter == _NO_ADAPTER else adapter}:{group['variant']}"


def _adapters(plan: ComparePlan, control: str) -> bool:
    """Whether any configuration is an adapter."""
    status = _get(f"{control}/api/status") or {}
    names = {adapter["name"] for adapter in status.get("adapters", ())}
    return any(one.model.rpartition(":")[0] in names for one in plan.configurations)


def _get(url: str) -> Mapping[str, Any] | None:
    try:
        answer = httpx.get(url, headers=control_headers(), timeout=_TIMEOUT_S)
        data = answer.json() if answer.is_success else None
    except (httpx.HTTPError, httpx.InvalidURL, ValueError):
        return None
    return data if isinstance(data, dict) else None
