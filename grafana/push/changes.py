"""What differs between what a Grafana is to have and what it has; and putting it right."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from grafana_client import GrafanaApi

from grafana.push.stores import STORES
from grafana.push.target import Target, answered
from grafana.push.wanted import Thing

__all__ = ["Change", "apply", "changes"]

_SHOWN: Final = 5
"""Of the places where a thing differs; the rest is counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What is to be done to one thing."""

    thing: Thing
    action: Literal["create", "update", "none"]
    differs: Sequence[str] = ()
    """Paths of the keys."""

    def __str__(self) -> str:
        where = ", ".join(self.differs[:_SHOWN])
        more = f" and {len(self.differs) - _SHOWN} more" if len(self.differs) > _SHOWN else ""
        detail = f" ({where}{more})" if where else ""
        verb = {"create": "create", "update": "update", "none": "same  "}[self.action]
        return f"{verb}  {self.thing.kind} {self.thing.title}{detail}"


def changes(api: GrafanaApi, target: Target, things: Sequence[Thing]) -> list[Change]:
    """One a thing, in their order. Raises `PushError`."""
    found = []
    for thing in things:
        there = answered(target, lambda thing=thing: STORES[thing.kind].read(api, thing.uid))  # type: ignore[misc]
        if there is None:
            found.append(Change(thing=thing, action="create"))
            continue
        differs = list(_differences(thing.body, there, ""))
        found.append(Change(thing=thing, action="update" if differs else "none", differs=differs))
    return found


def apply(api: GrafanaApi, target: Target, change: Change) -> None:
    """Do it. Raises `PushError`."""
    store = STORES[change.thing.kind]
    if change.action == "create":
        answered(target, lambda: store.create(api, change.thing))
    elif change.action == "update":
        answered(target, lambda: store.update(api, change.thing))


def _differences(wanted: Any, there: Any, path: str) -> Iterator[str]:
    """Grafana adds keys of its own: only those that are wanted must be as they are wanted."""
    if isinstance(wanted, Mapping) and isinstance(there, Mapping):
        for key, value in wanted.items():
            yield from _differences(value, there.get(key), f"{path}.{key}" if path else str(key))
    elif isinstance(wanted, list | tuple) and isinstance(there, list | tuple) and len(wanted) == len(there):
        for index, (one, other) in enumerate(zip(wanted, there, strict=True)):
            yield from _differences(one, other, f"{path}[{index}]")
    elif wanted != there:
        yield path
