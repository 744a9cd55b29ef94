"""Watches one running replica: does it answer, does it yield, how busy is it, how big."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from server.clock import Clock
from server.config import HealthSettings
from server.control.board import Board
from server.control.breaker import Breaker
from server.control.devices import gpu_memory_of
from server.control.hang import HangWatch
from server.control.scrape import EngineClient, max_model_len
from server.control.witness import Witness
from server.engines import Call
from server.engines.process_tree import proportional_set_size, tree
from server.fleet import SERVING, Ejection, EngineState
from server.units import Bytes
from server.wire import ReplicaSeen

__all__ = ["HealthWatch", "facts"]

_INTERVAL_S: Final = 2.0
_CLOSER_LOOK_S: Final = 0.5
"""Between two checks of a replica that is suspected."""
_REST_S: Final = 0.1
"""Between two checks at least, however often workers complain."""
_MEMORY_EVERY: Final = 15
"""Checks between two looks at the memory: the kernel walks every mapping for it."""


async def facts(client: EngineClient, upstream_model: str) -> dict[str, Any] | None:
    """What a replica says of itself; None if it does not list its models yet."""
    models = await client.models()
    if models is None:
        return None
    return {"max_model_len": max_model_len(models, upstream_model), "engine_version": await client.version()}


@dataclass(slots=True, kw_only=True)
class HealthWatch:
    """Keeps `state`, `problem`, `gauges`, `ejections` and `memory_bytes` of one replica true while it runs.

    Health is judged here and nowhere else (`breaker.py` says how): by checks, by what workers saw, by a probe.
    """

    board: Board
    name: str
    client: EngineClient
    probe: Call
    pid: int | None
    gpus: Sequence[int]
    checked: Callable[[], None]
    """Called after every check."""
    clock: Clock
    settings: HealthSettings
    witness: Witness
    interval_s: float = _INTERVAL_S
    _breaker: Breaker = field(init=False)
    _hang: HangWatch = field(init=False)
    _alarm: asyncio.Event = field(init=False, default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        state = self.board.get(self.name).state
        self._breaker = Breaker(self.clock, state, others_serve=self._others_serve)
        self._hang = HangWatch(client=self.client, probe=self.probe, settings=self.settings, witness=self.witness)

    async def until_hopeless(self) -> str:
        """For ever, or until only another start helps an engine that runs here; says why."""
        self.witness.progressed()  # what came before happened to the process before
        self.witness.on_seen = self._seen
        try:
            for check in itertools.count():
                await self._check()
                self.checked()
                if self.pid is not None and (why := self._hopeless()):
                    return why
                if check % _MEMORY_EVERY == 0 and self.pid is not None:
                    self.board.set(self.name, memory_bytes=await asyncio.to_thread(self._memory, self.pid))
                await self._rest()
        finally:
            self.witness.on_seen = None
        raise AssertionError("unreachable")

    async def _check(self) -> None:
        answered = await self.client.healthy()
        self._breaker.checked(answered)
        if answered:
            gauges = await self.client.gauges()
            self._hang.note(gauges)
            self.board.set(self.name, gauges=gauges)
            if self._breaker.may_be_tried:
                await self._try()
        await self._publish()
        if self._breaker.state in SERVING and await self._hang.hangs():
            waited = self.witness.stalled_for
            self._breaker.eject(
                Ejection.HUNG,
                f"It hangs: it answers its health check, but requests have waited {waited:.0f} s for a token, "
                "and a probe for one token got none.",
            )
            await self._publish()

    async def _try(self) -> None:
        """It was ejected and answers its checks. A token proves that it works; if it runs elsewhere, traffic may."""
        if self.pid is None and self._breaker.reason is not Ejection.HUNG:
            self._breaker.on_trial()
        elif await self._hang.yields():
            self.witness.progressed()
            self._breaker.proved()
        else:
            self._breaker.disproved()

    def _hopeless(self) -> str | None:
        if self._breaker.state is not EngineState.UNHEALTHY:
            return None
        if self._breaker.silent_for >= self.settings.hung_after_s:
            return f"It ran, but answered no health check for {self._breaker.silent_for:.0f} s."
        return self._breaker.problem if self._breaker.reason is Ejection.HUNG else None

    async def _rest(self) -> None:
        await asyncio.sleep(min(_REST_S, self.interval_s))
        closer = self._breaker.state is EngineState.SUSPECT
        try:
            async with asyncio.timeout(min(self.interval_s, _CLOSER_LOOK_S) if closer else self.interval_s):
                await self._alarm.wait()
        except TimeoutError:
            pass
        self._alarm.clear()

    def _seen(self, seen: ReplicaSeen) -> None:
        """A worker tells; failures are judged at once, and looked into."""
        was = self._breaker.state
        self._breaker.reported(answered=seen.answered, failed=seen.failed, erred=seen.erred)
        if seen.failed and self._breaker.state in SERVING:
            self._alarm.set()
        if self._breaker.state is not was:
            self._show(was)

    async def _publish(self) -> None:
        was = self.board.get(self.name).state
        if was is self._breaker.state:
            return
        if was not in SERVING and self._breaker.state in SERVING:
            # It may be another model by now: an external one can have been restarted.
            self.board.set(self.name, **(await facts(self.client, self.board.get(self.name).upstream_model) or {}))
        self._show(was)

    def _show(self, was: EngineState) -> None:
        state, replica = self._breaker.state, self.board.get(self.name)
        changes: dict[str, Any] = {"state": state, "problem": self._problem(replica.url)}
        if state is EngineState.UNHEALTHY:
            changes["gauges"] = None
            if was in SERVING and (reason := self._breaker.reason) is not None:
                changes["ejections"] = {**replica.ejections, reason: replica.ejections.get(reason, 0) + 1}
        self.board.set(self.name, **changes)

    def _problem(self, url: str | None) -> str | None:
        problem = self._breaker.problem
        if problem is None or self._breaker.state is not EngineState.UNHEALTHY:
            return problem
        if self.pid is not None:
            advice = "Look into its log."
        elif self._breaker.reason is Ejection.SILENT:
            advice = "Start it, or correct its `url` and key."
        else:
            advice = "Look after it there."
        return f"{problem} Its address is {url}. {advice}"

    def _others_serve(self) -> bool:
        """Whether another replica serves the same variant."""
        mine = self.board.get(self.name)
        return any(
            other.name != mine.name and (other.model, other.variant) == (mine.model, mine.variant)
            for other in self.board.replicas()
            if other.state in SERVING
        )

    def _memory(self, pid: int) -> Bytes | None:
        pids = tree(pid)
        return gpu_memory_of(pids, self.gpus) if self.gpus else proportional_set_size(pids)
