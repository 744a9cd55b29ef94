"""What every engine kind and every launcher must do."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import get_args

import pytest

from server.config import EngineSettings
from server.engines import ENGINES, Command, StartSpec
from server.engines.keeper import start_time
from server.engines.launchers import LAUNCHERS, Order
from server.errors import StartError
from tests.fakes import vllm_process

KEY = "a-secret-key"
NOT_STARTABLE = {"openai"}


def spec_of(tmp_path: Path, kind: str, **changes: object) -> StartSpec:
    settings = EngineSettings.model_validate(
        {"name": "e", "model": "demo", "checkpoint": str(tmp_path / "model"), "kind": kind, **changes}
    )
    environment = vllm_process.install(tmp_path / "env", tmp_path / "script")
    return StartSpec(
        settings=settings,
        environment=environment,
        served_names=("demo:bf16", "demo"),
        cores=(1, 2),
        gpus=(),
        gpu_share=None,
    )


@pytest.mark.parametrize("kind", sorted(ENGINES))
class TestEveryKind:
    def test_it_starts_a_program_or_says_why_not(self, tmp_path: Path, kind: str) -> None:
        if kind in NOT_STARTABLE:
            with pytest.raises(StartError, match=f"`{kind}`, which this gateway cannot start. Give it"):
                ENGINES[kind].command(spec_of(tmp_path, kind), port=8000, api_key=KEY)
            return
        command = ENGINES[kind].command(spec_of(tmp_path, kind), port=8000, api_key=KEY)
        assert isinstance(command, Command)
        assert Path(command.argv[0]).is_absolute()
        assert "8000" in command.argv
        assert KEY not in " ".join(command.argv), "arguments are seen by every user of the machine"

    def test_what_metrics_do_not_say_is_none(self, tmp_path: Path, kind: str) -> None:
        gauges = ENGINES[kind].gauges("")
        assert all(getattr(gauges, name) is None for name in gauges.__slots__)

    @pytest.mark.parametrize("task", get_args(EngineSettings.model_fields["task"].annotation))
    def test_it_can_be_asked_for_the_least_that_proves_that_it_computes(
        self, tmp_path: Path, kind: str, task: str
    ) -> None:
        probe = ENGINES[kind].probe("demo:bf16", task)
        assert probe.path.startswith("/v1/")
        assert probe.body["model"] == "demo:bf16"
        assert probe.body.get("max_tokens") == (1 if task == "generate" else None)

    def test_it_has_a_health_path(self, tmp_path: Path, kind: str) -> None:
        assert ENGINES[kind].health_paths
        assert all(path.startswith("/") for path in ENGINES[kind].health_paths)

    def test_an_empty_log_has_a_phase_and_no_cause(self, tmp_path: Path, kind: str) -> None:
        assert ENGINES[kind].phase("")
        assert ENGINES[kind].explain("", killed_by=None) is None

    def test_adapters_can_be_loaded_exactly_if_it_says_so(self, tmp_path: Path, kind: str) -> None:
        engine = ENGINES[kind]
        if engine.takes_adapters:
            assert engine.load_adapter("json:bf16", Path("/a")).path != engine.unload_adapter("json:bf16").path
        else:
            with pytest.raises(NotImplementedError):
                engine.load_adapter("json:bf16", Path("/a"))
            with pytest.raises(NotImplementedError):
                engine.unload_adapter("json:bf16")

    def test_base_models_are_no_adapters(self, tmp_path: Path, kind: str) -> None:
        models = {"object": "list", "data": [{"id": "demo", "object": "model"}]}
        assert ENGINES[kind].loaded_adapters(models) == {}


def order(tmp_path: Path, **changes: object) -> Order:
    fields: dict[str, object] = {
        "name": "e",
        "engine": ENGINES["vllm"],
        "spec": spec_of(tmp_path, "vllm"),
        "url": "http://elsewhere:8000",
        "api_key": "k",
        "launcher_pid": os.getpid(),
        "start_cores": (),
        "state_dir": tmp_path / "engines",
        "log": tmp_path / "logs" / "e.log",
        "restarts": 3,
    }
    return Order(**{**fields, **changes})  # type: ignore[arg-type]


@pytest.mark.anyio
@pytest.mark.parametrize("launcher", sorted(LAUNCHERS))
class TestEveryLauncher:
    async def test_there_is_nothing_to_take_over_at_first(self, tmp_path: Path, launcher: str) -> None:
        assert await LAUNCHERS[launcher].adopt(order(tmp_path)) is None
        assert await LAUNCHERS[launcher].end_strangers(tmp_path / "engines", frozenset()) == []

    async def test_what_it_launched_has_a_url_and_can_be_stopped_or_let_go(self, tmp_path: Path, launcher: str) -> None:
        running = await LAUNCHERS[launcher].launch(order(tmp_path))
        assert running.url.startswith("http://")
        async with asyncio.timeout(25):
            await running.stop()
        running.let_go()
        running.let_go()
        if running.pid is not None:
            assert start_time(running.pid) is None


@pytest.mark.anyio
async def test_local_launcher_starts_nothing_for_a_launcher_that_has_ended(tmp_path: Path) -> None:
    ended = await asyncio.create_subprocess_exec("true")
    await ended.wait()
    with pytest.raises(StartError, match="has ended"):
        await LAUNCHERS["local"].launch(order(tmp_path, launcher_pid=ended.pid))


@pytest.mark.anyio
async def test_program_that_cannot_be_executed_is_told_at_once(tmp_path: Path) -> None:
    wanted = order(tmp_path)
    python = wanted.spec.environment / "bin" / "python"
    python.write_text("no program")
    with pytest.raises(StartError, match="Exec format error"):
        await LAUNCHERS["local"].launch(wanted)


@pytest.mark.anyio
async def test_external_launcher_needs_a_url(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="url"):
        await LAUNCHERS["external"].launch(order(tmp_path, url=None))
