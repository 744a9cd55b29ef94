"""Which replicas can take which adapters, and why not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from server.control.adapter_store import Wanted
from server.control.resolve import Resolved
from server.engines import ENGINES
from server.engines.vllm import adapter_capacity
from server.errors import CheckpointError, IncompatibleError
from server.models import AdapterCard, check_adapter, read_adapter

__all__ = ["PENDING", "Spot", "read_adapter_or_why", "verdict", "wanted_on"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spot:
    """One adapter on one replica."""

    state: Literal["loaded", "pending", "refused", "failed"]
    """`pending`: will be loaded when the replica is ready. `refused`: this replica can never take it. `failed`: the
    engine was asked and declined."""
    reason: str | None = None
    instead: str | None = None
    """What would work."""
    load_s: float | None = None
    """How long loading took."""
    attempts: int = 0
    full: bool = False
    """Refused only because the replica holds as many adapters as it can."""


PENDING: Final = Spot(state="pending")


def read_adapter_or_why(folder: Path) -> AdapterCard | str:
    """The adapter's facts, or why they cannot be read."""
    try:
        return read_adapter(folder)
    except CheckpointError as exc:
        return str(exc)


def wanted_on(replica: Resolved, wanted: Iterable[Wanted]) -> list[Wanted]:
    """The adapters of this replica's model that are meant for its variant."""
    return [
        adapter
        for adapter in wanted
        if adapter.model == replica.settings.model and (adapter.variants is None or replica.variant in adapter.variants)
    ]


def verdict(
    adapter: Wanted, replica: Resolved, wanted: Iterable[Wanted], cards: Mapping[str, AdapterCard | str]
) -> Spot | None:
    """Why the replica does not get the adapter; None: it does. Asks no engine and reads no file."""
    card = cards[adapter.name]
    if isinstance(card, str):
        return Spot(state="failed", reason=card, instead="correct its files and load it again.")
    if refusal := _refusal(card, replica):
        return refusal
    able = [
        other.name
        for other in wanted_on(replica, wanted)
        if not isinstance(found := cards[other.name], str) and _refusal(found, replica) is None
    ]
    capacity = adapter_capacity(replica.settings)
    if able.index(adapter.name) >= capacity:
        return Spot(
            state="refused",
            reason=f"{replica.settings.name} holds {capacity} adapters and has them: {', '.join(able[:capacity])}.",
            instead="unload one of them, or raise the engine's `adapters.max_loaded` and start it again.",
            full=True,
        )
    return None


def _refusal(card: AdapterCard, replica: Resolved) -> Spot | None:
    if replica.place.kind == "remote" or not ENGINES[replica.settings.kind].takes_adapters:
        return Spot(
            state="refused",
            reason=f"{replica.settings.name} runs elsewhere; adapters are loaded on engines that this gateway starts.",
            instead="load it there, and list it as an engine of its own with `upstream_model`.",
        )
    limits = replica.settings.adapters
    try:
        check_adapter(
            card, replica.checkpoint, max_rank=None if limits is None else limits.max_rank, device=replica.facts
        )
    except IncompatibleError as exc:
        reason = str(exc).removesuffix(f" Instead: {exc.instead}")
        return Spot(state="refused", reason=reason, instead=exc.instead)
    return None
