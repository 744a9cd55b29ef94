"""Those who wait for admission, in the order in which they are to go.

Lower bands first. Within a band the tenants take turns, one request each; within a tenant the order of coming. A
request that is held up by a bound of its own (its tenant's, or that of the engines that can serve it) lets others pass.
"""

from __future__ import annotations

import asyncio
from bisect import insort
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Protocol

from server.errors import NoCapacityError, RequestError

__all__ = ["Claim", "Destination", "Line"]


class Destination(Protocol):
    """Where a request wants to go: all that admission must know of a route. One object a route."""

    serves: bool
    """Some replica serves now, with room or without."""
    hopeless: bool
    """None serves, or will soon."""
    tight: bool
    """There may be no room: ask `room`."""

    def room(self) -> str | None:
        """A replica that may have one more request now."""

    def hold(self, replica: str) -> None:
        """Keep room there for a request that will go on in a moment."""

    def free(self, replica: str) -> None:
        """The request goes on: its room is its own to take."""

    def nobody(self) -> NoCapacityError:
        """What to tell a client while none serves."""


class Claim:
    """One request's claim to a slot."""

    __slots__ = ("has_slot", "number", "place", "priority", "promised", "route", "size", "tenant", "timer", "waits")

    def __init__(self, tenant: str, priority: int, size: int, route: Destination) -> None:
        """`priority`: the band, lower goes first. `size` of the body, bytes."""
        self.tenant = tenant
        self.priority = priority
        self.size = size
        self.route = route
        self.has_slot = self.waits = False
        self.promised: str | None = None
        """The replica at which room is kept for it."""

    number: int
    """How many came before it. This and the following: only of those that have waited."""
    place: asyncio.Future[RequestError | None]
    """Done when the wait is over: None with a slot, else why not."""
    timer: asyncio.TimerHandle


class _Tenant:
    """One tenant's part of a band."""

    def __init__(self) -> None:
        self.lanes: dict[Destination, OrderedDict[int, Claim]] = {}
        self.waiting = 0

    def add(self, claim: Claim) -> None:
        self.lanes.setdefault(claim.route, OrderedDict())[claim.number] = claim
        self.waiting += 1

    def remove(self, claim: Claim) -> None:
        lane = self.lanes[claim.route]
        del lane[claim.number]
        if not lane:
            del self.lanes[claim.route]
        self.waiting -= 1

    def first(self, full: set[Destination]) -> Claim | None:
        """The one who came first, of those who have a place to go; finds and notes destinations that are `full`."""
        first: Claim | None = None
        for route, lane in self.lanes.items():
            head = next(iter(lane.values()))
            if (first is None or head.number < first.number) and route not in full:
                if route.tight and route.room() is None:
                    full.add(route)
                else:
                    first = head
        return first

    def last(self) -> Claim:
        """The one who came last."""
        return max((next(reversed(lane.values())) for lane in self.lanes.values()), key=lambda claim: claim.number)


class Line:
    """Knows the order, and no bounds but those of the destinations."""

    def __init__(self) -> None:
        self.bytes = 0
        """Of the bodies of all who wait."""
        self._waiting = 0
        self._came = 0
        self._bands: dict[int, OrderedDict[str, _Tenant]] = {}
        self._order: list[int] = []

    def __len__(self) -> int:
        """How many wait."""
        return self._waiting

    def hopeless(self) -> set[Destination]:
        """Where somebody waits to go, in vain."""
        return {route for tenant in self._tenants() for route in tenant.lanes if route.hopeless}

    def bound_for(self, route: Destination) -> list[Claim]:
        """Who waits to go there."""
        return [claim for tenant in self._tenants() for claim in tenant.lanes.get(route, {}).values()]

    def _tenants(self) -> Iterator[_Tenant]:
        for tenants in self._bands.values():
            yield from tenants.values()

    def add(self, claim: Claim) -> None:
        """Come last of one's tenant; a tenant that had nobody here takes the last turn."""
        self._came += 1
        claim.number = self._came
        tenants = self._bands.get(claim.priority)
        if tenants is None:
            tenants = self._bands[claim.priority] = OrderedDict()
            insort(self._order, claim.priority)
        tenant = tenants.get(claim.tenant)
        if tenant is None:
            tenant = tenants[claim.tenant] = _Tenant()
        tenant.add(claim)
        claim.waits = True
        self._waiting += 1
        self.bytes += claim.size

    def remove(self, claim: Claim) -> None:
        """Leave the line."""
        tenants = self._bands[claim.priority]
        tenant = tenants[claim.tenant]
        tenant.remove(claim)
        claim.waits = False
        if not tenant.waiting:
            del tenants[claim.tenant]
            if not tenants:
                del self._bands[claim.priority]
                self._order.remove(claim.priority)
        self._waiting -= 1
        self.bytes -= claim.size

    def serve(self, claim: Claim) -> None:
        """Leave the line to be served: it is the next tenant's turn."""
        tenants = self._bands[claim.priority]
        tenants.move_to_end(claim.tenant)
        self.remove(claim)

    def first(self, at_bound: Callable[[str], bool]) -> Claim | None:
        """Who goes next; None if everybody is held up by a bound of his own. `at_bound` says it of a tenant."""
        full: set[Destination] = set()
        for band in self._order:
            for name, tenant in self._bands[band].items():
                if not at_bound(name) and (claim := tenant.first(full)) is not None:
                    return claim
        return None

    def weaker_than(self, newcomer: Claim) -> Claim | None:
        """Who must give up his place to a newcomer when the line is full: the last of the tenant with most here.

        Only of a band after the newcomer's, or of a tenant who after that still has as many here as the newcomer's.
        """
        if not self._order or self._order[-1] < newcomer.priority:
            return None
        tenants = self._bands[self._order[-1]]
        most = max(tenants.values(), key=lambda tenant: tenant.waiting)
        if self._order[-1] == newcomer.priority:
            own = tenants.get(newcomer.tenant)
            if most.waiting <= (own.waiting if own else 0) + 1:
                return None
        return most.last()
