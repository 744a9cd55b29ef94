"""Adapters at run time: wanted once, loaded on every replica that can take them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from pydantic import ValidationError

from server.clock import Clock
from server.config import AdapterSettings, Config
from server.control.adapter_loader import AdapterLoader
from server.control.adapter_store import AdapterStore, Wanted
from server.control.adapter_verdict import Spot, read_adapter_or_why, wanted_on
from server.control.adapter_wanted import WantedAdapters
from server.control.resolve import Resolved
from server.control.routing_table import check_namespace
from server.control.supervisor import Supervisor
from server.engines.keeper import start_time
from server.errors import (
    BadRequestError,
    CheckpointError,
    ConfigError,
    ConflictError,
    NotFoundError,
    UnknownModelError,
)

__all__ = ["AdapterStatus", "Adapters"]

_RETRY_EVERY_S: Final = 30.0
_SETTLE_S: Final = 10.0
"""For engines of an earlier control plane to be found, so that the first alignment is of all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterStatus:
    """One wanted adapter and where it is."""

    name: str
    model: str
    path: str
    source: Literal["config", "runtime"]
    variants: tuple[str, ...] | None
    """Only on these; None: wherever it can be."""
    replicas: Mapping[str, Spot]
    """By replica, for every replica of its model and variants."""

    @property
    def engines(self) -> frozenset[str]:
        """The replicas that should have it, whether or not they have it yet: all that can take it."""
        return frozenset(name for name, spot in self.replicas.items() if spot.state in {"loaded", "pending"})

    @property
    def complete(self) -> bool:
        """Every replica that should have it has it, and there is one."""
        states = {spot.state for spot in self.replicas.values()}
        return "loaded" in states and states <= {"loaded", "refused"}


class Adapters:
    """The adapters of the configuration and those loaded at run time; survives restarts of engines and of itself."""

    def __init__(
        self,
        config: Config,
        supervisor: Supervisor,
        *,
        launcher_pid: int,
        clock: Clock,
        announce: Callable[[str], None],
    ) -> None:
        """Reads the adapters' headers; asks no engine."""
        self._supervisor = supervisor
        self._store = AdapterStore(config.state_dir, launcher=f"{launcher_pid}:{start_time(launcher_pid)}")
        self._loader = AdapterLoader(supervisor, self._store, clock=clock, announce=announce)
        self._wanted = WantedAdapters(self._store, config.adapters)
        self._lock = asyncio.Lock()
        """Of what is wanted."""
        self._turns = {name: asyncio.Lock() for name in supervisor.resolved()}
        """One a replica, so that one that hangs delays no other."""
        self._unaligned = set(self._turns)
        self._aligned = asyncio.Event()
        try:
            self._wanted.read({replica.settings.model for replica in self._replicas()})
        except CheckpointError as exc:
            announce(str(exc))

    async def run(self) -> None:
        """For ever: load what is wanted wherever a replica becomes ready."""
        async with self._lock:
            await asyncio.to_thread(self._store.prune, self._wanted.all())
            for wanted in self._wanted.all():
                await self._wanted.keep(wanted.name)
        await self._supervisor.wait_settled(_SETTLE_S)
        async with asyncio.TaskGroup() as group:
            for replica in self._replicas():
                group.create_task(self._keep_aligned(replica))

    async def _keep_aligned(self, replica: Resolved) -> None:
        seen = 0
        while True:
            await self._align(replica)
            self._unaligned.discard(replica.settings.name)
            if not self._unaligned:
                self._aligned.set()
            try:
                async with asyncio.timeout(_RETRY_EVERY_S):
                    seen = await self._supervisor.wait_change(seen)
            except TimeoutError:
                async with self._turns[replica.settings.name]:
                    self._loader.forgive(replica.settings.name)

    async def wait_aligned(self, bound_s: float) -> None:
        """Until the engines that were found serving hold what they should for the first time, or the bound has passed.

        What they hold then stands in `Supervisor.replicas`.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(bound_s):
                await self._aligned.wait()

    async def load(self, name: str, model: str, path: str, variants: list[str] | None = None) -> AdapterStatus:
        """Load it everywhere it can be; returns when every ready replica has answered (a minute at most each).

        Raises `UnknownModelError`, `ConflictError` (the name is taken, or no replica has room), `BadRequestError` (no
        replica can take it: the message says for each why, and what would work).
        """
        chosen = self._chosen(model, variants)
        async with self._lock:
            self._check_name(name, model, path)
            card = await asyncio.to_thread(read_adapter_or_why, Path(path))
            if isinstance(card, str):
                raise BadRequestError(card, param="path")
            only = None if variants is None else tuple(variants)
            wanted = Wanted(name=name, model=model, path=path, variants=only, source="runtime", digest=None)
            self._wanted.add(wanted, card)
            try:
                self._require_a_place(name, chosen)
                await self._wanted.keep(name)
                await self._align_all()
                self._require_a_success(name)
            except BaseException:  # whatever happened, nothing half-wanted may stay
                self._wanted.forget(name)
                self._loader.forget(name)
                raise
            self._wanted.save()
            return self._status_of(self._wanted.get(name) or wanted)

    async def unload(self, name: str) -> None:
        """Take it from every replica; raises `NotFoundError`.

        One that the configuration names stays away as long as the launcher lives, and is back with the next start.
        """
        async with self._lock:
            if self._wanted.get(name) is None:
                known = ", ".join(wanted.name for wanted in self._wanted.all())
                raise NotFoundError(f"There is no adapter {name!r}. Loaded are: {known or 'none'}.", param="name")
            self._wanted.forget(name)
            self._wanted.save()
            try:
                await self._align_all()
            finally:
                self._loader.forget(name)  # not before: a load that was under way would leave its outcome behind

    def status(self) -> list[AdapterStatus]:
        """Every wanted adapter, in the order in which they were wanted."""
        return [self._status_of(wanted) for wanted in self._wanted.all()]

    def _replicas(self) -> list[Resolved]:
        return list(self._supervisor.resolved().values())

    async def _align_all(self) -> None:
        async with asyncio.TaskGroup() as group:
            for replica in self._replicas():
                group.create_task(self._align(replica))

    async def _align(self, replica: Resolved) -> None:
        """Make the replica hold exactly what it should by the time its turn comes."""
        async with self._turns[replica.settings.name]:
            await self._loader.align(replica, self._wanted.due_on(replica))

    def _status_of(self, wanted: Wanted) -> AdapterStatus:
        return AdapterStatus(
            name=wanted.name,
            model=wanted.model,
            path=wanted.path,
            source=wanted.source,
            variants=wanted.variants,
            replicas={
                replica.settings.name: self._wanted.verdict(wanted.name, replica)
                or self._loader.spot(wanted.name, replica)
                for replica in self._replicas()
                if wanted_on(replica, [wanted])
            },
        )

    def _chosen(self, model: str, variants: list[str] | None) -> list[Resolved]:
        replicas = [replica for replica in self._replicas() if replica.settings.model == model]
        if not replicas:
            models = sorted({replica.settings.model for replica in self._replicas()})
            raise UnknownModelError(f"There is no model {model!r}. Served are: {', '.join(models)}.", param="model")
        has = list(dict.fromkeys(replica.variant for replica in replicas))
        if unknown := [variant for variant in variants or [] if variant not in has]:
            listed = f"{model!r} has no variant {', '.join(unknown)}. It has: {', '.join(has)}."
            raise UnknownModelError(listed, param="variants")
        return [replica for replica in replicas if variants is None or replica.variant in variants]

    def _check_name(self, name: str, model: str, path: str) -> None:
        try:
            AdapterSettings(name=name, model=model, path=path)
        except ValidationError as exc:
            why = exc.errors()[0]["msg"]
            raise BadRequestError(f"{name!r} cannot be an adapter's name: {why}.", param="name") from exc
        if self._wanted.get(name) is not None:
            raise ConflictError(f"There is an adapter {name!r} already. Unload it first, or choose another name.")
        variants = [(replica.settings.model, replica.variant) for replica in self._replicas()]
        adapters = [(wanted.name, wanted.model) for wanted in self._wanted.all()]
        try:
            check_namespace(variants, [*adapters, (name, model)])
        except ConfigError as exc:
            raise ConflictError(str(exc), param="name") from exc

    def _require_a_place(self, name: str, chosen: list[Resolved]) -> None:
        verdicts = {replica.settings.name: self._wanted.verdict(name, replica) for replica in chosen}
        refused = {replica: spot for replica, spot in verdicts.items() if spot is not None}
        if len(refused) == len(verdicts):
            message = f"No replica can take {name!r}. {_reasons(refused)}"
            raise ConflictError(message) if all(spot.full for spot in refused.values()) else BadRequestError(message)

    def _require_a_success(self, name: str) -> None:
        wanted = self._wanted.get(name)
        spots = self._status_of(wanted).replicas if wanted else {}
        if all(spot.state in {"refused", "failed"} for spot in spots.values()):
            raise BadRequestError(f"No replica could load {name!r}. {_reasons(spots)}")


def _reasons(spots: Mapping[str, Spot]) -> str:
    """Each reason once, with the replicas it holds for."""
    names: dict[str, list[str]] = {}
    for replica, spot in spots.items():
        instead = f" Instead: {spot.instead}" if spot.instead else ""
        names.setdefault(f"{spot.reason}{instead}", []).append(replica)
    return " ".join(f"{', '.join(replicas)}: {reason}" for reason, replicas in names.items())
