"""From a public model id to the replica that serves the request."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Callable, Collection, Sequence
from random import Random
from typing import Final

from server.clock import Clock
from server.errors import BadRequestError, ContendedError, NoCapacityError, UnknownModelError
from server.gateway.endpoints import Endpoint, endpoints_for
from server.gateway.routing import POLICIES
from server.gateway.routing.first import First
from server.gateway.routing.outstanding import Outstanding
from server.gateway.routing.plan import Plan, Target
from server.gateway.routing.policy import Ask, RoutingPolicy
from server.units import Seconds
from server.wire import Candidate, Route, Snapshot

__all__ = ["Ask", "Plan", "Router", "Target"]

_log = logging.getLogger("wattgate.gateway")

_GUESS_LENGTH: Final = 64
_GUESS_AMONG: Final = 100
"""Likeness costs milliseconds of the event loop where names are long or many."""
_SOON: Final = Seconds(1.0)
_NOBODY: Final[frozenset[str]] = frozenset()


class Router:
    """Holds the last snapshot, the policies' memory, and what is outstanding at each replica."""

    def __init__(self, clock: Clock, *, random: Random | None = None) -> None:
        """`random`: for policies that draw lots."""
        self.snapshot: Snapshot | None = None
        self.outstanding = Outstanding()
        """Requests sent and not ended, and room kept for those that go on in a moment, by replica."""
        self.avoided: dict[str, Seconds] = {}
        """Replicas to leave alone where there is another, with the monotonic time until when."""
        self.on_room: Callable[[], None] = _tell_nobody
        """Called when a route that had no room may have some, or may have lost its last replica."""
        self._clock = clock
        self._random = random or Random()  # noqa: S311  # balance, not secrets
        self._plans: dict[str, Plan] = {}
        self._bounded: frozenset[str] = _NOBODY

    def replace(self, snapshot: Snapshot) -> None:
        """Route by this table from now on; policies of ids that stay keep their memory."""
        before, self._plans = self._plans, {}
        for name, route in snapshot.routes.items():
            plan = self._plans[name] = before.get(name) or Plan(route, self.outstanding)
            plan.adopt(route, snapshot.replicas)
            if plan.policy_name != route.policy:
                plan.policy, plan.policy_name = self._policy(route), route.policy
        for name in before.keys() - self._plans.keys():
            before[name].close()
        self._bounded = frozenset(one.name for one in snapshot.replicas.values() if one.max_in_flight is not None)
        self.snapshot = snapshot
        self.on_room()

    def route_of(self, model: str, endpoint: Endpoint) -> Plan:
        """Who may serve a request for this id.

        Raises `UnknownModelError`, `BadRequestError` if the model does another task, `NoCapacityError` before there is
        a table.
        """
        plan = self._plans.get(model)
        if plan is None:
            raise self._unknown(model)
        if plan.route.task not in endpoint.tasks:
            raise _wrong_task(plan.route, endpoint)
        return plan

    def choose(self, plan: Plan, ask: Ask, avoid: Collection[str] = _NOBODY) -> Target:
        """Where the request goes: to none of `avoid`, to one of `avoided` only if there is no other.

        The caller counts it with `sent` before it waits for anything. Raises `NoCapacityError` if nobody is left, and
        `ContendedError` if all who are have no room (after admission only with `avoid`, or if an engine went just now).
        """
        if not avoid:
            if (only := plan.only) is not None:
                return only
            if not plan.bounded and not self.avoided and plan.candidates:
                return plan.targets[plan.policy.choose(plan.candidates, self.outstanding, ask).replica]
        return plan.targets[self._choose_with_care(plan, ask, avoid).replica]

    def sent(self, replica: str) -> None:
        """Count a request at the replica."""
        self.outstanding.add(replica)

    def ended(self, replica: str) -> None:
        """The request is no longer at the replica."""
        self.outstanding.remove(replica)
        if replica in self._bounded:
            self.on_room()

    def _choose_with_care(self, plan: Plan, ask: Ask, avoid: Collection[str]) -> Candidate:
        left: Sequence[Candidate] = plan.candidates
        if avoid:
            left = [one for one in left if one.replica not in avoid]
        if not left:
            raise _all_tried(plan) if plan.serves else plan.nobody()
        free = plan.with_room(left) if plan.bounded else left
        if not free:
            raise ContendedError(
                f"Every engine that can serve `{plan.route.id}` has as many requests as it may have "
                "(`max_in_flight`). Try again later.",
                retry_after=_SOON,
            )
        if self.avoided:
            self._forgive()
            free = [one for one in free if one.replica not in self.avoided] or free
        return free[0] if len(free) == 1 else plan.policy.choose(free, self.outstanding, ask)

    def _forgive(self) -> None:
        """Those whose time has passed are as good as others."""
        now = self._clock.monotonic()
        for name in [name for name, until in self.avoided.items() if until <= now]:
            del self.avoided[name]

    def _policy(self, route: Route) -> RoutingPolicy:
        make = POLICIES.get(route.policy)
        if make is None:
            _log.error("the route %r asks for the unknown policy %r; taking the first replica", route.id, route.policy)
            return First()
        return make(self._random)

    def _unknown(self, model: str) -> UnknownModelError | NoCapacityError:
        if self.snapshot is None:
            return NoCapacityError(
                "The gateway is starting and does not know its engines yet. Try again in a moment.", retry_after=_SOON
            )
        guessable = len(model) <= _GUESS_LENGTH and len(self._plans) <= _GUESS_AMONG
        near = difflib.get_close_matches(model, self._plans, n=3, cutoff=0.5) if guessable else []
        guess = f" Did you mean {' or '.join(f'`{name}`' for name in near)}?" if near else ""
        return UnknownModelError(
            f"There is no model `{model[:200]}`.{guess} `GET /v1/models` lists what is served.", param="model"
        )


def _tell_nobody() -> None:
    """Nobody waits for room."""


def _all_tried(plan: Plan) -> NoCapacityError:
    return NoCapacityError(
        f"Every engine that can serve `{plan.route.id}` now was tried. Try again later.", retry_after=_SOON
    )


def _wrong_task(route: Route, endpoint: Endpoint) -> BadRequestError:
    fitting = ", ".join(endpoints_for(route.task))
    return BadRequestError(
        f"`{route.id}` is a model for `{route.task}` and cannot answer {endpoint.paths[0]}; ask it at {fitting}.",
        param="model",
    )
