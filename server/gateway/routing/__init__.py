"""Routing policies by the name that a route gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from server.gateway.routing.first import First
from server.gateway.routing.least_outstanding import LeastOutstanding
from server.gateway.routing.policy import RoutingPolicy
from server.gateway.routing.round_robin import RoundRobin

__all__ = ["POLICIES", "RoutingPolicy"]

POLICIES: Final[Mapping[str, Callable[[], RoutingPolicy]]] = {
    "first": First,
    "least_outstanding": LeastOutstanding,
    "round_robin": RoundRobin,
}
