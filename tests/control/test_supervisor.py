"""Engines are started, watched, restarted, taken over and ended."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from server.control.devices import Gpu
from server.errors import ConflictError, NotFoundError
from server.fleet import EngineState
from server.units import Bytes
from tests.control.conftest import BOUND_S, FleetStage, alive, failed, gone, ready, running, until

pytestmark = pytest.mark.anyio


async def test_engine_becomes_ready_with_what_it_says_of_itself(stage: FleetStage) -> None:
    supervisor = stage.supervisor(stage.config())
    async with running(supervisor):
        replica = await until(supervisor, ready)
        assert (replica.variant, replica.precision, replica.upstream_model) == ("bf16", "bf16", "demo:bf16")
        assert (replica.max_model_len, replica.engine_version) == (1024, "0.0.fake")
        assert replica.pid == stage.starts()[0]
        assert replica.problem is None
        assert replica.card is not None
        async with asyncio.timeout(10):
            while supervisor.replicas()[0].memory_bytes is None:  # noqa: ASYNC110  # it is no change to wait for
                await asyncio.sleep(0.01)
        gauges = supervisor.replicas()[0].gauges
        assert gauges is not None
        assert (gauges.running, gauges.waiting, gauges.kv_usage_ratio, gauges.kv_capacity_tokens) == (2, 1, 0.25, 1600)
        assert gauges.preemptions_total is None
    assert supervisor.replicas()[0].state is EngineState.STOPPED
    assert any("after its start, serves demo:bf16" in line for line in stage.said)


async def test_engine_is_reached_with_its_own_key_and_not_without(stage: FleetStage) -> None:
    supervisor = stage.supervisor(stage.config())
    async with running(supervisor), httpx.AsyncClient(trust_env=False) as http:
        replica = await until(supervisor, ready)
        url = f"{replica.url}/v1/models"
        assert (await http.get(url)).status_code == 401
        assert (await http.get(url, headers={"authorization": f"Bearer {replica.api_key}"})).status_code == 200
        argv = json.loads((stage.script / "demo_bf16.argv").read_text())
        assert replica.api_key not in " ".join(argv)
        assert replica.api_key
        state = stage.runtime / "engines" / "demo-bf16.json"
        assert state.stat().st_mode & 0o777 == 0o600


async def test_crashed_engine_is_back_after_a_backoff_and_leaves_no_process(stage: FleetStage) -> None:
    stage.direct("family")
    supervisor = stage.supervisor(stage.config())
    async with running(supervisor):
        first = await until(supervisor, ready)
        assert first.pid is not None
        grandchild = stage.grandchild()
        os.kill(first.pid, signal.SIGKILL)
        second = await until(supervisor, lambda replica: ready(replica) and replica.pid != first.pid)
        assert second.restarts == 1
        assert gone(grandchild)
    assert any("ended by signal 9 while it served" in line for line in stage.said)


async def test_engine_that_keeps_failing_is_given_up_and_the_cause_is_said(stage: FleetStage) -> None:
    stage.direct("crash", "INFO starting\nCUDA out of memory. Tried to allocate 2 GiB")
    supervisor = stage.supervisor(stage.config({}, {"name": "other", "variant": "second"}))
    async with running(supervisor):
        replica = await until(supervisor, failed)
        assert len(stage.starts()) == 2
        assert replica.problem is not None
        assert "The GPU's memory is not enough." in replica.problem
        assert "Tried to allocate 2 GiB" in replica.problem
        await until(supervisor, ready, "other")


async def test_failure_that_another_start_cannot_mend_is_not_tried_again(stage: FleetStage) -> None:
    stage.direct("crash", "ValueError: Failed to find a kernel that can implement the WNA16 linear layer.")
    supervisor = stage.supervisor(stage.config())
    async with running(supervisor):
        replica = await until(supervisor, failed)
        assert len(stage.starts()) == 1
        assert replica.problem is not None
        assert "no kernel for the checkpoint's quantization (WNA16)" in replica.problem


async def test_restart_on_request_revives_a_given_up_engine(stage: FleetStage) -> None:
    crash = stage.direct("crash", "ValueError: Failed to find a kernel that can implement the WNA16 linear layer.")
    supervisor = stage.supervisor(stage.config())
    async with running(supervisor):
        await until(supervisor, failed)
        crash.unlink()
        await supervisor.restart("demo-bf16")
        await until(supervisor, ready)


async def test_restart_of_a_ready_engine_makes_another_process(stage: FleetStage) -> None:
    supervisor = stage.supervisor(stage.config())
    async with running(supervisor):
        first = await until(supervisor, ready)
        await supervisor.restart("demo-bf16")
        second = await until(supervisor, lambda replica: ready(replica) and replica.pid != first.pid)
        assert second.api_key != first.api_key
        with pytest.raises(NotFoundError, match="demo-bf16"):
            await supervisor.restart("nobody")


async def test_engine_that_is_not_ready_in_time_fails_with_advice(stage: FleetStage) -> None:
    stage.direct("slow")
    supervisor = stage.supervisor(stage.config({"ready_timeout_s": 0.5}))
    async with running(supervisor):
        replica = await until(supervisor, failed)
        assert replica.problem is not None
        assert "raise `ready_timeout_s`" in replica.problem
        assert "Starting to load model" in replica.problem


async def test_stop_ends_an_engine_that_still_starts(stage: FleetStage) -> None:
    stage.direct("slow")
    supervisor = stage.supervisor(stage.config())
    async with running(supervisor):
        replica = await until(supervisor, lambda replica: replica.pid is not None)
        assert replica.state is EngineState.STARTING
    assert replica.pid is not None
    assert gone(replica.pid)


async def test_new_supervisor_takes_over_a_running_engine(stage: FleetStage) -> None:
    first = stage.supervisor(stage.config())
    async with running(first, stop=False):
        before = await until(first, ready)
    assert before.pid is not None
    assert alive(before.pid)
    second = stage.supervisor(stage.config())
    async with running(second):
        after = await until(second, ready)
        assert (after.pid, after.url, after.api_key, after.restarts) == (before.pid, before.url, before.api_key, 0)
        assert len(stage.starts()) == 1


async def test_supervisor_is_settled_once_what_runs_is_ready_again(stage: FleetStage) -> None:
    first = stage.supervisor(stage.config())
    async with running(first, stop=False):
        assert not first.settled()
        await until(first, ready)
    nowhere = {"checkpoint": None, "url": "http://127.0.0.1:1", "precision": "bf16", "name": "far", "variant": "far"}
    lost = {"name": "lost", "variant": "lost", "checkpoint": "nowhere"}
    stage.direct("slow", engine="demo_slow")
    second = stage.supervisor(stage.config({}, nowhere, lost, {"name": "slow", "variant": "slow"}))
    async with running(second):
        assert not second.settled()
        await second.wait_settled(BOUND_S)
        assert second.settled()
        states = {replica.name: replica.state for replica in second.replicas()}
        assert states["demo-bf16"] is EngineState.READY
        assert states["slow"] in {EngineState.PENDING, EngineState.STARTING}


async def test_wait_until_settled_has_a_bound(stage: FleetStage) -> None:
    supervisor = stage.supervisor(stage.config())
    await supervisor.wait_settled(0)
    assert not supervisor.settled()


async def test_running_engine_is_taken_over_while_another_starts_on_its_gpu(stage: FleetStage) -> None:
    gpus = [Gpu(index=0, compute_capability=(9, 0), memory_bytes=Bytes(1 << 40))]
    config = stage.config({"device": "gpu:0"}, {"device": "gpu:0", "name": "other", "variant": "other"})
    first = stage.supervisor(config, gpus=gpus)
    async with running(first, stop=False):
        crashed = await until(first, ready)
        other = await until(first, ready, "other")
    keeper = json.loads((stage.runtime / "engines" / "demo-bf16.json").read_text())["keeper"]
    assert crashed.pid is not None
    os.kill(crashed.pid, signal.SIGKILL)
    assert gone(keeper)
    stage.direct("slow")
    second = stage.supervisor(config, gpus=gpus)
    async with running(second):
        assert (await until(second, ready, "other")).pid == other.pid
        assert not ready(second.replicas()[0])


async def test_engine_that_was_started_otherwise_is_replaced(stage: FleetStage) -> None:
    first = stage.supervisor(stage.config())
    async with running(first, stop=False):
        before = await until(first, ready)
    second = stage.supervisor(stage.config({"options": {"kv_cache_gib": 0.001, "max_num_seqs": 4}}))
    async with running(second):
        after = await until(second, ready)
        assert after.pid != before.pid
        assert before.pid is not None
        assert gone(before.pid)


async def test_engine_that_left_the_configuration_is_ended(stage: FleetStage) -> None:
    first = stage.supervisor(stage.config({}, {"name": "other", "variant": "second"}))
    async with running(first, stop=False):
        await until(first, ready)
        other = await until(first, ready, "other")
    second = stage.supervisor(stage.config())
    async with running(second):
        await until(second, ready)
        assert other.pid is not None
        assert gone(other.pid)
        assert any("other: ended, it is no longer in the configuration" in line for line in stage.said)


async def test_engine_that_crashed_while_nobody_looked_is_started_anew(stage: FleetStage) -> None:
    first = stage.supervisor(stage.config())
    async with running(first, stop=False):
        before = await until(first, ready)
    assert before.pid is not None
    keeper = json.loads((stage.runtime / "engines" / "demo-bf16.json").read_text())["keeper"]
    os.kill(before.pid, signal.SIGKILL)
    assert gone(keeper)
    second = stage.supervisor(stage.config())
    async with running(second):
        after = await until(second, ready)
        assert after.pid != before.pid


async def test_wrong_engine_is_failed_and_the_others_serve(stage: FleetStage) -> None:
    supervisor = stage.supervisor(stage.config({}, {"name": "lost", "variant": "lost", "checkpoint": "nowhere"}))
    async with running(supervisor):
        await until(supervisor, ready)
        replica = await until(supervisor, failed, "lost")
        assert replica.problem is not None
        assert "nowhere" in replica.problem
        assert stage.starts("demo_lost") == []


async def test_missing_engine_environment_names_the_command(stage: FleetStage) -> None:
    config = stage.config(environments={"engine": str(stage.root / "no-env")})
    supervisor = stage.supervisor(config)
    async with running(supervisor):
        replica = await until(supervisor, failed)
        assert replica.problem is not None
        assert "make .venv-engine" in replica.problem


async def test_external_engine_is_watched_and_never_stopped(stage: FleetStage) -> None:
    local = stage.supervisor(stage.config())
    async with running(local):
        engine = await until(local, ready)
        external = {"checkpoint": None, "url": engine.url, "precision": "bf16", "upstream_model": "demo:bf16"}
        config = stage.config({**external, "name": "far", "kind": "vllm", "api_key_env": "FAR_KEY"})
        assert engine.api_key is not None
        far = stage.supervisor(config, environ={"FAR_KEY": engine.api_key}, runtime="far")
        async with running(far):
            replica = await until(far, ready, "far")
            assert (replica.max_model_len, replica.engine_version) == (1024, "0.0.fake")
            assert (replica.device, replica.pid, replica.launcher) == ("remote", None, "external")
            with pytest.raises(ConflictError):
                await far.restart("far")
        assert engine.pid is not None
        assert alive(engine.pid)


async def test_launcher_that_is_killed_leaves_nothing(stage: FleetStage) -> None:
    stage.direct("family")
    config = stage.root / "config.json"
    config.write_text(stage.config().model_dump_json())
    launcher = subprocess.Popen(  # noqa: ASYNC220  # nothing else runs on this loop
        [sys.executable, str(Path(__file__).with_name("lone_launcher.py")), str(config), str(stage.runtime)],
        stdout=subprocess.PIPE,
    )
    assert launcher.stdout is not None
    with launcher.stdout:
        line = await asyncio.to_thread(launcher.stdout.readline)
    engine = int(line)
    grandchild = stage.grandchild()
    keeper = json.loads((stage.runtime / "engines" / "demo-bf16.json").read_text())["keeper"]
    launcher.kill()
    launcher.wait()
    assert gone(engine)
    assert gone(grandchild)
    assert gone(keeper)


async def test_killed_keeper_takes_its_engine_along_and_the_engine_comes_back(stage: FleetStage) -> None:
    supervisor = stage.supervisor(stage.config())
    async with running(supervisor):
        first = await until(supervisor, ready)
        state = json.loads((stage.runtime / "engines" / "demo-bf16.json").read_text())
        os.kill(state["keeper"], signal.SIGKILL)
        assert first.pid is not None
        assert gone(first.pid)
        await until(supervisor, lambda replica: ready(replica) and replica.pid != first.pid)
