"""Routing policies by the name that a route gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random
from typing import Final

from server.gateway.routing.adapter_affinity import AdapterAffinity
from server.gateway.routing.first import First
from server.gateway.routing.least_outstanding import LeastOutstanding
from server.gateway.routing.policy import Ask, RoutingPolicy
from server.gateway.routing.power_of_two import PowerOfTwo
from server.gateway.routing.prefix_affinity import PrefixAffinity
from server.gateway.routing.round_robin import RoundRobin
from server.gateway.routing.weighted import Weighted

__all__ = ["POLICIES", "Ask", "RoutingPolicy"]

POLICIES: Final[Mapping[str, Callable[[Random], RoutingPolicy]]] = {
    "first": lambda _: First(),
    "least_outstanding": lambda _: LeastOutstanding(),
    "round_robin": lambda _: RoundRobin(),
    "weighted": lambda _: Weighted(),
    "power_of_two": PowerOfTwo,
    "prefix_affinity": lambda _: PrefixAffinity(),
    "adapter_affinity": lambda _: AdapterAffinity(),
}
"""Each is made with the source of its randomness. `server.config.settings.PolicyName` lists the same names."""
