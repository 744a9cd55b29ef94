"""Engines that hang are found out and started again; busy ones are left alone. The engines are real processes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from typing import Any

import pytest

from server.clock import SystemClock
from server.control.supervisor import Supervisor
from server.fleet import Ejection, EngineState, Replica
from server.wire import ReplicaSeen
from tests.control.conftest import BOUND_S, FleetStage, failed, gone, ready, running, until
from tests.fakes.batches import batch, worker

pytestmark = pytest.mark.anyio

NAME = "demo-bf16"
IMPATIENT = {"hung_after_s": 0.2, "probe_timeout_s": 0.2}


def tell(supervisor: Supervisor, in_flight: int, **seen: int) -> None:
    """A worker tells how many requests it has at the engine and what it saw there."""
    told: dict[str, Any] = {"in_flight": {NAME: in_flight} if in_flight else {}, "seen": {NAME: ReplicaSeen(**seen)}}
    supervisor.take(batch(at=SystemClock().monotonic(), **told), worker())


async def scraped(supervisor: Supervisor, steps: int = 0) -> Replica:
    """Once the engine's own counters were read, and were at so many steps."""
    async with asyncio.timeout(BOUND_S):
        while (gauges := supervisor.replicas()[0].gauges) is None or (gauges.steps_total or 0) < steps:  # noqa: ASYNC110  # nobody is told of gauges
            await asyncio.sleep(0.01)
    return supervisor.replicas()[0]


async def test_engine_that_answers_its_checks_and_yields_no_token_is_ejected_and_started_again(
    stage: FleetStage,
) -> None:
    hang = stage.direct("hung")
    supervisor = stage.supervisor(stage.config(health=IMPATIENT))
    async with running(supervisor):
        first = await until(supervisor, ready)
        await scraped(supervisor)
        tell(supervisor, 1)
        ejected = await until(supervisor, lambda replica: replica.ejections == {Ejection.HUNG: 1})
        assert "It hangs" in str(ejected.problem)
        hang.unlink()
        tell(supervisor, 0)
        second = await until(supervisor, lambda replica: ready(replica) and replica.pid != first.pid)
        assert second.restarts == 1
        assert first.pid is not None
        assert gone(first.pid)
    asked = json.loads((stage.script / "demo_bf16.asked").read_text())
    assert asked == ["/v1/completions", "demo:bf16"]
    assert any("It hangs" in line and "started again" in line for line in stage.said)


async def test_engine_that_hangs_after_every_start_is_given_up_in_the_end(stage: FleetStage) -> None:
    stage.direct("hung")
    supervisor = stage.supervisor(stage.config(health=IMPATIENT))
    async with running(supervisor):
        tell(supervisor, 1)
        replica = await until(supervisor, failed)
        assert str(replica.problem).startswith("It hangs")
        assert replica.ejections == {Ejection.HUNG: 2}
        assert len(stage.starts()) == 2
        assert all(gone(pid) for pid in stage.starts())


async def test_long_prefill_is_no_hang_while_the_engine_steps(stage: FleetStage) -> None:
    stage.direct("hung")
    stage.direct("steps")
    supervisor = stage.supervisor(stage.config(health=IMPATIENT))
    async with running(supervisor):
        await until(supervisor, ready)
        await scraped(supervisor, steps=1)
        tell(supervisor, 1)
        assert (await scraped(supervisor, steps=3)).state is EngineState.READY
        assert not (stage.script / "demo_bf16.asked").exists(), "there was no reason to ask"
        assert len(stage.starts()) == 1


async def test_frozen_engine_is_ejected_and_started_again(stage: FleetStage) -> None:
    supervisor = stage.supervisor(stage.config(health=IMPATIENT))
    async with running(supervisor):
        first = await until(supervisor, ready)
        await scraped(supervisor)
        assert first.pid is not None
        os.kill(first.pid, signal.SIGSTOP)
        tell(supervisor, 1, timed_out=1)
        assert (await until(supervisor, lambda replica: replica.state is EngineState.SUSPECT)).problem is not None
        await until(supervisor, lambda replica: replica.ejections == {Ejection.SILENT: 1})
        second = await until(supervisor, lambda replica: ready(replica) and replica.pid != first.pid)
        assert second.restarts == 1
        assert gone(first.pid)


async def test_engine_at_which_requests_fail_is_ejected_and_comes_back_by_a_token(stage: FleetStage) -> None:
    supervisor = stage.supervisor(stage.config())
    async with running(supervisor):
        first = await until(supervisor, ready)
        tell(supervisor, 0, lost=5)
        ejected = supervisor.replicas()[0]
        assert (ejected.state, ejected.ejections) == (EngineState.UNHEALTHY, {Ejection.FAILURES: 1})
        again = await until(supervisor, ready)
        assert (again.pid, again.problem) == (first.pid, None)
        assert (stage.script / "demo_bf16.asked").exists()
