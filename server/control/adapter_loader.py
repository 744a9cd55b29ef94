"""Makes one replica hold exactly the adapters that it should."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Final

from server.clock import Clock
from server.control.adapter_store import AdapterStore, Wanted
from server.control.adapter_verdict import PENDING, Spot
from server.control.resolve import Resolved
from server.control.scrape import EngineClient
from server.control.supervisor import Supervisor
from server.engines import ENGINES

__all__ = ["AdapterLoader"]

_ATTEMPTS: Final = 5
"""An engine that declined this often is not asked again until it, or the adapter, is another."""


class AdapterLoader:
    """Asks engines what they hold, and to load and unload. Not for two callers at a time on one replica."""

    def __init__(
        self, supervisor: Supervisor, store: AdapterStore, *, clock: Clock, announce: Callable[[str], None]
    ) -> None:
        self._supervisor = supervisor
        self._store = store
        self._clock = clock
        self._announce = announce
        self._held: dict[str, tuple[EngineClient, dict[str, str]]] = {}
        """By replica: what its present life has loaded, full name → path."""
        self._asked: dict[tuple[str, str], Spot] = {}
        """How the last attempt to load (adapter, replica) in its present life went."""

    def spot(self, name: str, replica: Resolved) -> Spot:
        """How it stands with an adapter that the replica should have."""
        client, held = self._held.get(replica.settings.name, (None, {}))
        if client is None or client is not self._supervisor.client(replica.settings.name):
            return PENDING
        asked = self._asked.get((name, replica.settings.name), PENDING)
        if _full_name(name, replica) in held:
            return replace(asked, state="loaded", reason=None)
        return asked if asked.state == "failed" else PENDING

    def forget(self, name: str) -> None:
        """The adapter of this name will be another one, if there is one again."""
        self._asked = {key: spot for key, spot in self._asked.items() if key[0] != name}

    def forgive(self, replica: str) -> None:
        """Let loads that this replica declined be tried again."""
        for key, spot in list(self._asked.items()):
            if key[1] == replica and spot.state == "failed" and spot.attempts < _ATTEMPTS:
                self._asked[key] = replace(spot, state="pending")
                self._held.pop(replica, None)  # it may have done it after all: ask

    async def align(self, replica: Resolved, should: Collection[Wanted]) -> None:
        """Unload what it should not hold, load what it should; does nothing while it does not serve."""
        name = replica.settings.name
        client = self._supervisor.client(name)
        if client is None or replica.settings.adapters is None or replica.place.kind == "remote":
            return
        held = await self._holds(name, client, replica)
        if held is None:
            return
        wanted_paths = {_full_name(wanted.name, replica): str(self._store.copy_of(wanted)) for wanted in should}
        for full_name in [key for key, path in held.items() if wanted_paths.get(key) != path]:
            await self._unload(replica, client, held, full_name)
        for wanted in should:
            declined = self._asked.get((wanted.name, name), PENDING).state == "failed"
            if _full_name(wanted.name, replica) not in held and not declined:
                await self._load(replica, client, held, wanted)
        if client is self._supervisor.client(name):
            loaded = frozenset(wanted.name for wanted in should if _full_name(wanted.name, replica) in held)
            self._supervisor.note_adapters(name, loaded)

    async def _holds(self, name: str, client: EngineClient, replica: Resolved) -> dict[str, str] | None:
        """What this life of the engine has loaded: known, or asked once. None: it does not say."""
        known, held = self._held.get(name, (None, {}))
        if known is client:
            return held
        models = await client.models()
        if models is None:
            return None
        if known is not None:  # it was restarted: all was lost, declined loads too
            self._asked = {key: spot for key, spot in self._asked.items() if key[1] != name}
        held = ENGINES[replica.settings.kind].loaded_adapters(models)
        self._held[name] = (client, held)
        return held

    async def _load(self, replica: Resolved, client: EngineClient, held: dict[str, str], wanted: Wanted) -> None:
        name, full_name = replica.settings.name, _full_name(wanted.name, replica)
        path = self._store.copy_of(wanted)
        asked = self._asked.get((wanted.name, name), PENDING)
        started_at = self._clock.monotonic()
        reason = await client.call(ENGINES[replica.settings.kind].load_adapter(full_name, path))
        took = self._clock.monotonic() - started_at
        if reason is None:
            held[full_name] = str(path)
            self._asked[wanted.name, name] = Spot(state="loaded", load_s=took)
            self._announce(f"{name}: adapter {full_name} loaded in {took:.1f} s")
        elif client is self._supervisor.client(name):
            spot = Spot(state="failed", reason=f"The engine declined it: {reason}.", attempts=asked.attempts + 1)
            self._asked[wanted.name, name] = spot
            self._announce(f"{name}: adapter {full_name} not loaded. {spot.reason}")

    async def _unload(self, replica: Resolved, client: EngineClient, held: dict[str, str], full_name: str) -> None:
        name = replica.settings.name
        reason = await client.call(ENGINES[replica.settings.kind].unload_adapter(full_name))
        if reason is None:
            del held[full_name]
            self._announce(f"{name}: adapter {full_name} unloaded")
        else:
            self._announce(f"{name}: adapter {full_name} not unloaded. The engine declined it: {reason}.")


def _full_name(name: str, replica: Resolved) -> str:
    return f"{name}:{replica.variant}"
