"""One public id as a worker routes it: who can serve it now, and whether there is room."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from server.errors import NoCapacityError
from server.gateway.routing.first import First
from server.gateway.routing.outstanding import Outstanding
from server.gateway.routing.policy import RoutingPolicy
from server.units import Seconds
from server.wire import Candidate, ReplicaAddress, Route

__all__ = ["Plan", "Target"]

_COME_BACK: Final = Seconds(5.0)
_NO_BOUND: Final = sys.maxsize


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The replica that was chosen, and as what it serves."""

    candidate: Candidate
    replica: ReplicaAddress


class Plan:
    """A route with what follows from it. It outlives snapshots, so that whoever waits with it sees the newest one."""

    __slots__ = (
        "_bounds", "_outstanding", "bounded", "candidates", "hopeless", "only", "policy", "policy_name", "route",
        "serves", "targets", "tight",
    )  # fmt: skip

    def __init__(self, route: Route, outstanding: Outstanding) -> None:
        """`outstanding`: the router's counts by replica, which this shares."""
        self.route = route
        self.policy: RoutingPolicy = First()
        self.policy_name = ""
        self.candidates: tuple[Candidate, ...] = ()
        """The healthy ones, in the configuration's order."""
        self.targets: dict[str, Target] = {}
        """The same by replica."""
        self.only: Target | None = None
        """The one target where there is just one, and no bound on it."""
        self.bounded = False
        """A candidate has a bound on what it may have in flight."""
        self.tight = True
        """There may be no room: every candidate has a bound, or there is none."""
        self.serves = False
        """There is a candidate."""
        self.hopeless = True
        """There is none, and none will be soon."""
        self._outstanding = outstanding
        self._bounds: dict[str, int] = {}

    def adopt(self, route: Route, replicas: Mapping[str, ReplicaAddress]) -> None:
        """Follow this route from now on."""
        healthy = [one for one in route.candidates if one.replica in replicas and replicas[one.replica].healthy]
        bounds = {one.replica: replicas[one.replica].max_in_flight for one in healthy}
        self.route = route
        self.candidates = tuple(healthy)
        self.targets = {one.replica: Target(candidate=one, replica=replicas[one.replica]) for one in healthy}
        self._bounds = {name: bound for name, bound in bounds.items() if bound is not None}
        self.bounded = bool(self._bounds)
        self.tight = len(self._bounds) == len(healthy)
        self.serves = bool(healthy)
        self.hopeless = not healthy and not route.starting
        self.only = self.targets[healthy[0].replica] if len(healthy) == 1 and not self.bounded else None

    def close(self) -> None:
        """The id is no longer served."""
        self.adopt(msgspec.structs.replace(self.route, candidates=[], starting=False), {})

    def with_room(self, candidates: Sequence[Candidate]) -> Sequence[Candidate]:
        """Those that may have one more in flight."""
        bounds, outstanding = self._bounds, self._outstanding
        return [one for one in candidates if outstanding.get(one.replica, 0) < bounds.get(one.replica, _NO_BOUND)]

    # --- what admission asks ------------------------------------------------------------------------------------------

    def room(self) -> str | None:
        """A replica that may have one more in flight."""
        for one in self.candidates:
            if self._outstanding.get(one.replica, 0) < self._bounds.get(one.replica, _NO_BOUND):
                return one.replica
        return None

    def hold(self, replica: str) -> None:
        """Keep room there for a request that will go on in a moment."""
        self._outstanding.add(replica)

    def free(self, replica: str) -> None:
        """The request goes on: its room is its own to take."""
        self._outstanding.remove(replica)

    def nobody(self) -> NoCapacityError:
        """What to tell a client while no replica can serve."""
        waiting = ", ".join(sorted({one.replica for one in self.route.candidates}))
        which = f"not ready: {waiting}" if waiting else "no engine is assigned to it"
        return NoCapacityError(
            f"No engine can serve `{self.route.id}` now ({which}). Try again later, or see `wattgate status`.",
            retry_after=_COME_BACK,
        )
