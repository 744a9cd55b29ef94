"""From a public model id to the replica that serves the request."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from server.errors import BadRequestError, NoCapacityError, UnknownModelError
from server.gateway.endpoints import Endpoint, endpoints_for
from server.gateway.routing import POLICIES
from server.gateway.routing.first import First
from server.gateway.routing.policy import RoutingPolicy
from server.units import Seconds
from server.wire import Candidate, ReplicaAddress, Route, Snapshot

__all__ = ["Router", "Target"]

_log = logging.getLogger("wattgate.gateway")

_COME_BACK = Seconds(5.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The replica that was chosen, and as what it serves."""

    candidate: Candidate
    replica: ReplicaAddress


class Router:
    """Holds the last snapshot, the policies' memory, and what is outstanding at each replica."""

    def __init__(self) -> None:
        self.snapshot: Snapshot | None = None
        self.outstanding: dict[str, int] = {}
        """Requests sent and not ended, by replica."""
        self._policies: dict[str, RoutingPolicy] = {}
        self._names: dict[str, str] = {}
        self._healthy: dict[str, list[Candidate]] = {}

    def replace(self, snapshot: Snapshot) -> None:
        """Route by this table from now on; policies of ids that stay keep their memory."""
        for name, route in snapshot.routes.items():
            if self._names.get(name) != route.policy:
                self._policies[name] = _policy(route)
        self._names = {name: route.policy for name, route in snapshot.routes.items()}
        self._policies = {name: self._policies[name] for name in snapshot.routes}
        self._healthy = {name: _healthy(route, snapshot.replicas) for name, route in snapshot.routes.items()}
        self.snapshot = snapshot

    def choose(self, model: str, endpoint: Endpoint) -> Target:
        """Where a request for this id goes.

        Raises `UnknownModelError`, `BadRequestError` if the model does another task, `NoCapacityError`.
        """
        snapshot = self.snapshot
        if snapshot is None:
            raise NoCapacityError(
                "The gateway is starting and does not know its engines yet. Try again in a moment.",
                retry_after=Seconds(1.0),
            )
        route = snapshot.routes.get(model)
        if route is None:
            raise _unknown(model, snapshot)
        if route.task not in endpoint.tasks:
            raise _wrong_task(route, endpoint)
        candidates = self._healthy[model]
        if not candidates:
            raise _no_replica(route)
        candidate = self._policies[model].choose(candidates, self.outstanding)
        return Target(candidate=candidate, replica=snapshot.replicas[candidate.replica])

    @contextmanager
    def one_more_at(self, replica: str) -> Iterator[None]:
        """Count a request at the replica while the block runs."""
        self.outstanding[replica] = self.outstanding.get(replica, 0) + 1
        try:
            yield
        finally:
            self.outstanding[replica] -= 1
            if not self.outstanding[replica]:
                del self.outstanding[replica]


def _policy(route: Route) -> RoutingPolicy:
    make = POLICIES.get(route.policy)
    if make is None:
        _log.error("the route %r asks for the unknown policy %r; taking the first replica", route.id, route.policy)
        return First()
    return make()


def _healthy(route: Route, replicas: Mapping[str, ReplicaAddress]) -> list[Candidate]:
    return [one for one in route.candidates if one.replica in replicas and replicas[one.replica].healthy]


def _unknown(model: str, snapshot: Snapshot) -> UnknownModelError:
    near = difflib.get_close_matches(model[:200], snapshot.routes, n=3, cutoff=0.5)
    guess = f" Did you mean {' or '.join(f'`{name}`' for name in near)}?" if near else ""
    return UnknownModelError(
        f"There is no model `{model[:200]}`.{guess} `GET /v1/models` lists what is served.", param="model"
    )


def _wrong_task(route: Route, endpoint: Endpoint) -> BadRequestError:
    fitting = ", ".join(endpoints_for(route.task))
    return BadRequestError(
        f"`{route.id}` is a model for `{route.task}` and cannot answer {endpoint.paths[0]}; ask it at {fitting}.",
        param="model",
    )


def _no_replica(route: Route) -> NoCapacityError:
    waiting = ", ".join(sorted({one.replica for one in route.candidates}))
    which = f"not ready: {waiting}" if waiting else "no engine is assigned to it"
    return NoCapacityError(
        f"No engine can serve `{route.id}` now ({which}). Try again later, or see `wattgate status`.",
        retry_after=_COME_BACK,
    )
