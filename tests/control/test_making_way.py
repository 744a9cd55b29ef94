"""Before another configuration, and before a restart, an engine finishes its requests."""

from __future__ import annotations

import asyncio

import pytest

from server.fleet import EngineState
from tests.control.conftest import BOUND_S, FleetStage, alive, gone, ready, running, until

pytestmark = pytest.mark.anyio


class Clients:
    """Requests at engines, as far as the supervisor can tell."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.gone = asyncio.Event()

    async def idle(self, engine: str) -> None:
        self.asked.append(engine)
        await self.gone.wait()


async def test_engine_that_goes_is_ended_after_its_requests_and_the_other_runs_on(stage: FleetStage) -> None:
    clients = Clients()
    supervisor = stage.supervisor(stage.config({}, {"name": "other", "variant": "second"}), idle=clients.idle)
    async with running(supervisor):
        first, other = await until(supervisor, ready), await until(supervisor, ready, "other")
        assert first.pid is not None
        assert other.pid is not None
        making = asyncio.create_task(supervisor.make_way(stage.config({"name": "other", "variant": "second"})))
        await until(supervisor, lambda replica: replica.state is EngineState.DRAINING)
        assert alive(first.pid)
        assert supervisor.replicas()[0].url == first.url  # what runs there goes on
        assert not making.done()
        clients.gone.set()
        assert await making == ["demo-bf16"]
        assert gone(first.pid)
        assert alive(other.pid)
        assert clients.asked == ["demo-bf16"]


async def test_engine_with_other_settings_goes_and_one_with_the_same_stays(stage: FleetStage) -> None:
    supervisor = stage.supervisor(stage.config({}, {"name": "other", "variant": "second"}))
    async with running(supervisor):
        first, other = await until(supervisor, ready), await until(supervisor, ready, "other")
        assert first.pid is not None
        assert other.pid is not None
        changed = {"options": {"kv_cache_gib": 0.001, "max_num_seqs": 4}}
        left = await supervisor.make_way(stage.config(changed, {"name": "other", "variant": "second"}))
        assert left == ["demo-bf16"]
        assert gone(first.pid)
        assert alive(other.pid)


async def test_drain_has_a_bound(stage: FleetStage) -> None:
    config = stage.config(gateway={"drain_timeout_s": 0.1})
    supervisor = stage.supervisor(config, idle=Clients().idle)
    async with running(supervisor):
        first = await until(supervisor, ready)
        async with asyncio.timeout(BOUND_S):
            assert await supervisor.make_way(stage.config({"name": "else"})) == ["demo-bf16"]
        assert first.pid is not None
        assert gone(first.pid)


async def test_restart_drains_and_a_second_one_does_not_wait(stage: FleetStage) -> None:
    supervisor = stage.supervisor(stage.config(gateway={"drain_timeout_s": 600}), idle=Clients().idle)
    async with running(supervisor):
        first = await until(supervisor, ready)
        assert first.pid is not None
        await supervisor.restart("demo-bf16")
        await until(supervisor, lambda replica: replica.state is EngineState.DRAINING)
        assert alive(first.pid)
        await supervisor.restart("demo-bf16")
        await until(supervisor, lambda replica: ready(replica) and replica.pid != first.pid)


async def test_stop_does_not_wait_for_a_drain(stage: FleetStage) -> None:
    supervisor = stage.supervisor(stage.config(gateway={"drain_timeout_s": 600}), idle=Clients().idle)
    async with running(supervisor):
        await until(supervisor, ready)
        making = asyncio.create_task(supervisor.make_way(stage.config({"name": "else"})))
        await until(supervisor, lambda replica: replica.state is EngineState.DRAINING)
        async with asyncio.timeout(BOUND_S):
            await supervisor.stop()
        assert await making == ["demo-bf16"]
