"""`GET /v1/models`, from the routing table."""

from __future__ import annotations

from typing import Any

from server.units import Seconds
from server.wire import Route, Snapshot

__all__ = ["model_list", "model_object"]


def model_list(snapshot: Snapshot, created: Seconds) -> dict[str, Any]:
    """All listed ids, in the table's order."""
    data = [model_object(route, created) for route in snapshot.routes.values() if route.listed]
    return {"object": "list", "data": data}


def model_object(route: Route, created: Seconds) -> dict[str, Any]:
    """One id with its facts; OpenAI's own fields cannot be overwritten by a card."""
    return {
        **route.card,
        "id": route.id,
        "object": "model",
        "created": int(created),
        "owned_by": "wattgate",
        "task": route.task,
    }
