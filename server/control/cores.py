"""Plans which cores the gateway and the engines compute on."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from server.config import Config
from server.control.devices import find_gpus, place_engines

__all__ = ["CorePlan", "CoreWish", "allowed_cores", "gateway_cores", "parse_cores", "plan_cores"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreWish:
    """One engine that computes on the CPU of this machine."""

    name: str
    cores: frozenset[int] | None
    """As the configuration says; None: whatever is free."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CorePlan:
    """An empty set means: bound to nothing."""

    gateway: frozenset[int]
    """For workers and the control plane. No engine computes here, unless there is only one core."""
    engines: Mapping[str, frozenset[int]]
    start: frozenset[int]
    """For an engine's processes while it starts: that is work for every core, and nobody is served yet."""


def allowed_cores(pid: int = 0) -> frozenset[int]:
    """The cores that process `pid` (0: this one) may use.

    Ask it of the launcher, which is bound to nothing; the planes themselves are bound to the gateway's cores.
    """
    return frozenset(os.sched_getaffinity(pid))


def gateway_cores(config: Config, launcher_pid: int = 0) -> frozenset[int]:
    """The cores for workers and control plane; empty if they need not be bound (no engine computes on this CPU)."""
    wishes = [
        CoreWish(name=settings.name, cores=parse_cores(settings.device))
        for settings, place in zip(config.engines, place_engines(config, find_gpus()), strict=True)
        if place.kind == "cpu"
    ]
    return plan_cores(wishes, allowed_cores(launcher_pid), workers=config.gateway.workers).gateway


def parse_cores(device: str) -> frozenset[int] | None:
    """`cpu:1-3,5` → {1, 2, 3, 5}; None if the device names no cores."""
    kind, _, text = device.partition(":")
    if kind != "cpu" or not text:
        return None
    cores: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        cores.update(range(int(first), int(last or first) + 1))
    return frozenset(cores)


def plan_cores(wishes: Sequence[CoreWish], allowed: frozenset[int], *, workers: int) -> CorePlan:
    """Share `allowed` between the gateway and the engines, which must not compute on the same core.

    The reader of a stream that fights with its engine for a core sees several tokens at once, and late.
    The gateway gets the lowest cores that nobody asked for: one for each worker and one for the control plane, at most
    a quarter of the machine, at least one. Engines share the rest evenly; if there are more engines than cores, each
    may use all of the rest.
    """
    if not wishes:
        return CorePlan(gateway=frozenset(), engines={}, start=frozenset())
    asked = frozenset[int]().union(*(wish.cores for wish in wishes if wish.cores is not None))
    open_cores = sorted(allowed - asked) or sorted(allowed)
    gateway = frozenset(open_cores[: max(1, min(workers + 1, len(allowed) // 4))])
    rest = sorted(set(open_cores) - gateway) or sorted(allowed - gateway) or sorted(allowed)
    free = _split(rest, [wish.name for wish in wishes if wish.cores is None])
    engines = {wish.name: free[wish.name] if wish.cores is None else wish.cores for wish in wishes}
    return CorePlan(gateway=gateway, engines=engines, start=allowed)


def _split(cores: list[int], names: list[str]) -> dict[str, frozenset[int]]:
    if len(cores) < len(names):
        return dict.fromkeys(names, frozenset(cores))
    share, extra = divmod(len(cores), len(names)) if names else (0, 0)
    found: dict[str, frozenset[int]] = {}
    at = 0
    for index, name in enumerate(names):
        size = share + (index < extra)
        found[name] = frozenset(cores[at : at + size])
        at += size
    return found
