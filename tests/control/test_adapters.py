"""Adapters are loaded on every replica that can take them, refused with reasons, and come back."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from server.control.adapters import Adapters
from server.control.supervisor import Supervisor
from server.errors import BadRequestError, ConflictError, NotFoundError, UnknownModelError
from server.fleet import Replica
from tests.control.conftest import BOUND_S, FleetStage, ready, running, until
from tests.fakes.safetensors_file import write_adapter

pytestmark = pytest.mark.anyio

LIMITS = {"max_loaded": 2, "max_rank": 16}
BF16 = {"adapters": LIMITS}
FP16 = {"name": "demo-fp16", "options": {"kv_cache_gib": 0.001, "dtype": "float16"}, "adapters": LIMITS}
INT8 = {"name": "demo-int8", "checkpoint": "int8"}


@pytest.fixture
def json_adapter(stage: FleetStage) -> Path:
    return write_adapter(stage.root / "json")


def has(*names: str) -> Callable[[Replica], bool]:
    return lambda replica: ready(replica) and replica.adapters == frozenset(names)


async def serving(supervisor: Supervisor, *names: str) -> list[Replica]:
    return [await until(supervisor, ready, name) for name in names]


async def test_adapter_of_the_configuration_is_loaded_under_its_full_name(
    stage: FleetStage, json_adapter: Path
) -> None:
    config = stage.config(BF16, FP16, adapters=({"name": "json", "model": "demo", "path": "json"},))
    supervisor = stage.supervisor(config)
    adapters = stage.adapters(config, supervisor)
    async with running(supervisor, adapters):
        await until(supervisor, has("json"))
        await until(supervisor, has("json"), "demo-fp16")
        (status,) = adapters.status()
        assert (status.source, status.complete) == ("config", True)
        assert status.engines == {"demo-bf16", "demo-fp16"}
        assert status.replicas["demo-bf16"].load_s is not None
    ((_, name, path),) = stage.calls()
    assert name == "json:bf16"
    assert [call[1] for call in stage.calls("demo_fp16")] == ["json:fp16"]
    assert Path(path) != json_adapter
    assert (Path(path) / "adapter_model.safetensors").exists()


async def test_adapter_is_back_after_its_engine_crashed(stage: FleetStage, json_adapter: Path) -> None:
    config = stage.config(BF16)
    supervisor = stage.supervisor(config)
    adapters = stage.adapters(config, supervisor)
    async with running(supervisor, adapters):
        first = await until(supervisor, ready)
        status = await adapters.load("json", "demo", str(json_adapter))
        assert status.complete
        # What was loaded is what comes back, whatever happened to the original meanwhile.
        shutil.rmtree(json_adapter)
        assert first.pid is not None
        os.kill(first.pid, signal.SIGKILL)
        await until(supervisor, lambda replica: replica.pid not in {first.pid, None} and "json" in replica.adapters)
    assert [call[:2] for call in stage.calls()] == [["load", "json:bf16"]] * 2


async def test_adapter_loaded_at_run_time_survives_the_control_plane(stage: FleetStage, json_adapter: Path) -> None:
    config = stage.config(BF16)
    first = stage.supervisor(config)
    adapters = stage.adapters(config, first)
    async with running(first, adapters, stop=False):
        await until(first, ready)
        await adapters.load("json", "demo", str(json_adapter))
    second = stage.supervisor(config)
    again = stage.adapters(config, second)
    async with running(second, again):
        await again.wait_aligned(BOUND_S)
        assert has("json")(second.replicas()[0])
        assert again.status()[0].complete
    assert len(stage.calls()) == 1, "the engine had it still: no second load"


async def test_unloaded_adapter_is_gone_from_every_replica_and_stays_away(
    stage: FleetStage, json_adapter: Path
) -> None:
    config = stage.config(BF16, FP16, adapters=({"name": "json", "model": "demo", "path": "json"},))
    supervisor = stage.supervisor(config)
    adapters = stage.adapters(config, supervisor)
    async with running(supervisor, adapters):
        await until(supervisor, has("json"))
        await until(supervisor, has("json"), "demo-fp16")
        await adapters.unload("json")
        assert all(replica.adapters == frozenset() for replica in supervisor.replicas())
        assert stage.calls()[-1] == ["unload", "json:bf16"]
        assert stage.calls("demo_fp16")[-1] == ["unload", "json:fp16"]
        with pytest.raises(NotFoundError, match="'json'"):
            await adapters.unload("json")
    assert stage.adapters(config, supervisor).status() == []


async def test_adapter_is_loaded_where_it_can_be_and_refused_elsewhere_with_what_would_work(
    stage: FleetStage, json_adapter: Path
) -> None:
    config = stage.config(BF16, INT8)
    supervisor = stage.supervisor(config)
    adapters = stage.adapters(config, supervisor)
    async with running(supervisor, adapters):
        await serving(supervisor, "demo-bf16", "demo-int8")
        status = await adapters.load("json", "demo", str(json_adapter))
        assert status.engines == {"demo-bf16"}
        assert status.complete
        refused = status.replicas["demo-int8"]
        assert refused.state == "refused"
        assert refused.reason is not None
        assert refused.instead is not None
        assert "Instead" not in refused.reason


async def test_adapter_that_nobody_can_take_is_refused_with_all_reasons(stage: FleetStage) -> None:
    dora = write_adapter(stage.root / "dora", use_dora=True)
    config = stage.config(BF16, FP16)
    supervisor = stage.supervisor(config)
    adapters = stage.adapters(config, supervisor)
    with pytest.raises(BadRequestError, match=r"demo-bf16, demo-fp16: .*DoRA.*Instead: merge"):
        await adapters.load("dora", "demo", str(dora))
    assert adapters.status() == []


async def test_adapter_that_the_engine_declines_is_told_in_its_words_and_not_kept(
    stage: FleetStage, json_adapter: Path
) -> None:
    stage.direct("declines", "no such layer")
    config = stage.config(BF16)
    supervisor = stage.supervisor(config)
    adapters = stage.adapters(config, supervisor)
    async with running(supervisor, adapters):
        await until(supervisor, ready)
        with pytest.raises(BadRequestError, match=r"no such layer \(HTTP 500\)"):
            await adapters.load("json", "demo", str(json_adapter))
        assert adapters.status() == []


@pytest.mark.parametrize(
    ("name", "model", "folder", "variants", "error", "said"),
    [
        ("json", "demo", "nowhere", None, BadRequestError, "nowhere"),
        ("json", "dmo", "json", None, UnknownModelError, "Served are: demo"),
        ("json", "demo", "json", ["int3"], UnknownModelError, "It has: bf16"),
        ("demo", "demo", "json", None, ConflictError, "'demo'"),
        ("demo:bf16", "demo", "json", None, ConflictError, "'demo:bf16'"),
        ("a b", "demo", "json", None, BadRequestError, "cannot be an adapter's name"),
    ],
)
async def test_senseless_load_is_refused(
    stage: FleetStage, json_adapter: Path, name, model, folder, variants, error, said
) -> None:
    config = stage.config(BF16)
    adapters = stage.adapters(config, stage.supervisor(config))
    with pytest.raises(error, match=said):
        await adapters.load(name, model, str(stage.root / folder), variants)
    assert adapters.status() == []


async def test_name_that_is_taken_is_a_conflict(stage: FleetStage, json_adapter: Path) -> None:
    config = stage.config(BF16)
    adapters = stage.adapters(config, stage.supervisor(config))
    await adapters.load("json", "demo", str(json_adapter))
    with pytest.raises(ConflictError, match="already"):
        await adapters.load("json", "demo", str(json_adapter))


async def test_full_replica_is_a_conflict_that_names_what_it_holds(stage: FleetStage, json_adapter: Path) -> None:
    config = stage.config(BF16)
    adapters = stage.adapters(config, stage.supervisor(config))
    for number in range(8):
        await adapters.load(f"a{number}", "demo", str(json_adapter))
    with pytest.raises(ConflictError, match="holds 8 adapters and has them: a0, a1"):
        await adapters.load("one-more", "demo", str(json_adapter))


async def test_adapter_waits_for_an_engine_that_is_not_ready(stage: FleetStage, json_adapter: Path) -> None:
    slow = stage.direct("slow")
    config = stage.config(BF16)
    supervisor = stage.supervisor(config)
    adapters = stage.adapters(config, supervisor)
    async with running(supervisor, adapters):
        status = await adapters.load("json", "demo", str(json_adapter))
        assert status.replicas["demo-bf16"].state == "pending"
        assert not status.complete
        slow.unlink()
        await until(supervisor, has("json"))


async def test_adapter_for_one_variant_stays_off_the_others(stage: FleetStage, json_adapter: Path) -> None:
    config = stage.config(BF16, FP16)
    adapters = stage.adapters(config, stage.supervisor(config))
    status = await adapters.load("json", "demo", str(json_adapter), ["fp16"])
    assert set(status.replicas) == {"demo-fp16"}


async def test_broken_adapter_of_the_configuration_is_shown_and_hurts_nobody(stage: FleetStage) -> None:
    config = stage.config(BF16, adapters=({"name": "json", "model": "demo", "path": "nowhere"},))
    supervisor = stage.supervisor(config)
    adapters = stage.adapters(config, supervisor)
    async with running(supervisor, adapters):
        await until(supervisor, ready)
        spot = adapters.status()[0].replicas["demo-bf16"]
        assert spot.state == "failed"
        assert spot.reason is not None
        assert "nowhere" in spot.reason


async def test_broken_store_is_said_and_does_not_stop_the_gateway(stage: FleetStage, json_adapter: Path) -> None:
    config = stage.config(BF16, adapters=({"name": "json", "model": "demo", "path": "json"},))
    config.state_dir.mkdir()
    (config.state_dir / "adapters.json").write_text("{")
    adapters = stage.adapters(config, stage.supervisor(config))
    assert [status.name for status in adapters.status()] == ["json"]
    assert any("adapters.json is broken" in line for line in stage.said)


async def test_store_never_holds_half_a_file(stage: FleetStage, json_adapter: Path) -> None:
    config = stage.config(BF16)
    adapters: Adapters = stage.adapters(config, stage.supervisor(config))
    await adapters.load("json", "demo", str(json_adapter))
    stored = json.loads((config.state_dir / "adapters.json").read_text())
    assert [entry["name"] for entry in stored["loaded"]] == ["json"]
    async with asyncio.timeout(BOUND_S):
        await adapters.unload("json")
    assert json.loads((config.state_dir / "adapters.json").read_text())["loaded"] == []


async def test_engine_that_hangs_keeps_no_other_from_its_adapters(stage: FleetStage, json_adapter: Path) -> None:
    config = stage.config(BF16, FP16)
    supervisor = stage.supervisor(config)
    adapters = stage.adapters(config, supervisor)
    async with running(supervisor, adapters):
        hanging, other = await serving(supervisor, "demo-bf16", "demo-fp16")
        await adapters.wait_aligned(BOUND_S)
        assert hanging.pid is not None
        assert other.pid is not None
        os.kill(hanging.pid, signal.SIGSTOP)
        load = asyncio.create_task(adapters.load("json", "demo", str(json_adapter)))
        try:
            await until(supervisor, has("json"), "demo-fp16")
            os.kill(other.pid, signal.SIGKILL)
            again = await until(
                supervisor, lambda replica: replica.pid != other.pid and has("json")(replica), "demo-fp16"
            )
            assert again.restarts == 1
            assert not load.done()
        finally:
            os.kill(hanging.pid, signal.SIGCONT)
        assert (await load).complete
