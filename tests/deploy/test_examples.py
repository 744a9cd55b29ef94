"""The example configurations and the Prometheus configuration are right as files."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from server.config import Config, EngineSettings, load_config
from server.control.preflight import preflight

FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "examples"
EXAMPLES = sorted([*FOLDER.glob("*.yaml"), *FOLDER.glob("plans/*-gateway.yaml")])
ALL_EXAMPLES = [pytest.param(path, id=path.stem) for path in EXAMPLES]


def load(path: Path) -> Config:
    return load_config(path, environ={})


def gpus_of(engine: EngineSettings) -> list[str]:
    return engine.device.removeprefix("gpu:").split(",") if engine.device.startswith("gpu:") else []


def test_there_are_examples_for_one_gpu_and_for_one_node() -> None:
    assert {path.stem for path in EXAMPLES} >= {"one-24gb-gpu", "one-8-gpu-node"}


@pytest.mark.parametrize("path", ALL_EXAMPLES)
@pytest.mark.parametrize("flags", ["avx2", "avx2 avx512f"])
def test_nothing_is_wrong_with_the_file_itself(path: Path, flags: str, tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(f"flags : {flags}\n")
    _, problems = preflight(load(path), environ={}, cpuinfo=tmp_path / "cpuinfo")
    assert [problem for problem in problems if problem.scope == "file"] == []


@pytest.mark.parametrize("path", ALL_EXAMPLES)
def test_engines_ask_for_as_many_gpus_as_they_split_a_layer_over(path: Path) -> None:
    for engine in load(path).engines:
        if engine.device.startswith("gpu:"):
            assert len(gpus_of(engine)) == (engine.options.tensor_parallel_size or 1), engine.name


@pytest.mark.parametrize("path", ALL_EXAMPLES)
def test_engines_on_one_gpu_leave_room_for_the_driver(path: Path) -> None:
    shares: dict[str, float] = {}
    for engine in load(path).engines:
        for gpu in gpus_of(engine):
            shares[gpu] = shares.get(gpu, 0.0) + (engine.options.gpu_memory_utilization or 0.9)
    assert max(shares.values(), default=0.0) <= 0.92


@pytest.mark.parametrize("path", ALL_EXAMPLES)
def test_variants_of_a_model_are_comparable(path: Path) -> None:
    lengths: dict[str, set[int | None]] = {}
    for engine in load(path).engines:
        lengths.setdefault(engine.model, set()).add(engine.options.max_model_len)
    assert all(len(found) == 1 for found in lengths.values())


def test_prometheus_accepts_its_configuration(root: Path) -> None:
    config = root / "deploy" / "prometheus" / "prometheus.yml"
    checked = subprocess.run(["promtool", "check", "config", str(config)], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_prometheus_scrapes_the_port_that_the_control_plane_has_by_default(root: Path) -> None:
    config = (root / "deploy" / "prometheus" / "prometheus.yml").read_text()
    default = Config.model_fields["control"].get_default(call_default_factory=True)
    assert f'"{default.host}:{default.port}"' in config
