"""One gateway with three real vLLM engines on the CPU, shared by the whole test run."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml

from loadgen._demo._cpu import serves_int4

__all__ = ["THIRD", "Fleet", "fleet", "free_port", "wait_until"]

ROOT = Path(__file__).resolve().parents[2]
THIRD = "int4" if serves_int4() else "fp16"
"""The variant beside bf16 and int8: vLLM has its int4 kernel for CPUs with AVX-512 only."""
EXAMPLE = ROOT / "deploy" / "examples" / ("demo.yaml" if THIRD == "int4" else "demo-fp16.yaml")
START_BOUND_S = 420.0
VARIANTS = {"demo-int8": ["--scheme", "w8a8-int8"]} | ({"demo-int4": ["--scheme", "w4a16"]} if THIRD == "int4" else {})


def free_port() -> int:
    """A TCP port that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(condition: Any, *, bound_s: float, what: str, every_s: float = 0.1) -> Any:
    """Poll until `condition()` is true and return its value; fail with `what` after `bound_s`."""
    deadline = time.monotonic() + bound_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            pytest.fail(f"not within {bound_s:.0f} s: {what}")
        time.sleep(every_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """A running gateway, seen from outside."""

    gateway: str
    control: str
    launcher: subprocess.Popen[bytes]
    config: Path
    state_dir: Path

    def status(self) -> dict[str, Any]:
        answer = httpx.get(f"{self.control}/api/status", timeout=10)
        answer.raise_for_status()
        return dict(answer.json())

    def engine(self, name: str) -> dict[str, Any]:
        return next(engine for engine in self.status()["engines"] if engine["name"] == name)

    def ready(self) -> bool:
        try:
            return bool(self.status()["state"] == "ready")
        except httpx.HTTPError:
            return False

    def wait_ready(self, bound_s: float = START_BOUND_S) -> None:
        def ready_or_dead() -> bool:
            if self.launcher.poll() is not None:
                pytest.fail(f"the gateway ended with status {self.launcher.returncode} while starting")
            return self.ready()

        wait_until(ready_or_dead, bound_s=bound_s, what="all engines ready", every_s=0.5)

    def processes(self) -> list[psutil.Process]:
        """The launcher and all its descendants."""
        launcher = psutil.Process(self.launcher.pid)
        return [launcher, *launcher.children(recursive=True)]

    def find(self, module: str) -> psutil.Process:
        """The one process that runs `python -m MODULE`."""
        found = []
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                if module in process.cmdline():
                    found.append(process)
        assert len(found) == 1, f"{module}: {found}"
        return found[0]


def chat(model: str, text: str = "What does json.dumps do?", **more: Any) -> dict[str, Any]:
    """The body of a chat request at temperature 0."""
    return {
        "model": model,
        "messages": [{"role": "user", "content": text}],
        "temperature": 0,
        "max_tokens": 32,
        **more,
    }


def make_variants() -> None:
    """The quantized checkpoints, made from the committed model if they are not there."""
    for name, options in VARIANTS.items():
        out = ROOT / "variants" / name
        if not (out / "config.json").exists():
            subprocess.run(
                [ROOT / ".venv-engine/bin/python", "-m", "quant", "rtn", "models/demo", out, *options],
                cwd=ROOT,
                check=True,
                timeout=300,
            )
        # As the demo does: what was measured of this very rounding.
        shutil.copyfile(ROOT / "models" / "demo" / f"quality.{name.removeprefix('demo-')}.json", out / "quality.json")


def write_config(folder: Path, **changes: Any) -> tuple[Path, dict[str, Any]]:
    """The demo's configuration with free ports, a state folder of its own and absolute paths."""
    config = yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))
    config["state_dir"] = str(folder / "state")
    config["gateway"] = {**config.get("gateway", {}), "port": free_port()}
    config["control"] = {**config.get("control", {}), "port": free_port()}
    config["environments"] = {"engine": str(ROOT / ".venv-engine")}
    config |= {
        "carbon": {"grams_per_kwh": 400},
        "cost": {"currency": "EUR", "price_per_kwh": 0.3},
        "budgets": [{"tenant": "*", "period": "month", "joules": 1e12}],
    }
    for engine in config["engines"]:
        engine["checkpoint"] = str((EXAMPLE.parent / engine["checkpoint"]).resolve())
    for adapter in config["adapters"]:
        adapter["path"] = str((EXAMPLE.parent / adapter["path"]).resolve())
    config |= changes
    path = folder / "wattgate.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path, config


def start(path: Path, config: dict[str, Any], log: Path) -> Fleet:
    """`wattgate up` as a user would start it; its words go to `log`."""
    with log.open("wb") as file:
        launcher = subprocess.Popen(
            [sys.executable, "-m", "server", "up", "--config", str(path)],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},  # noqa: TID251  # passed on
        )
    return Fleet(
        gateway=f"http://127.0.0.1:{config['gateway']['port']}",
        control=f"http://127.0.0.1:{config['control']['port']}",
        launcher=launcher,
        config=path,
        state_dir=Path(config["state_dir"]),
    )


def stop(running: Fleet, number: int = signal.SIGTERM, bound_s: float = 60.0) -> list[psutil.Process]:
    """End the gateway by a signal; returns whoever outlived it (and ends them, so that no test leaks)."""
    family = running.processes() if running.launcher.poll() is None else []
    with contextlib.suppress(ProcessLookupError):
        running.launcher.send_signal(number)
    try:
        running.launcher.wait(bound_s)
    except subprocess.TimeoutExpired:
        running.launcher.kill()
        running.launcher.wait()
    _, left = psutil.wait_procs(family, timeout=10 if number == signal.SIGKILL else 0)
    for process in left:
        with contextlib.suppress(psutil.Error):
            process.kill()
    return left


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Three variants and two adapters behind one endpoint; every test must leave it ready."""
    folder = tmp_path_factory.mktemp("fleet")
    make_variants()
    path, config = write_config(folder)
    log = folder / "up.log"
    running = start(path, config, log)
    try:
        running.wait_ready()
        yield running
    finally:
        left = stop(running)
        print(log.read_text(encoding="utf-8", errors="replace"))
    assert left == [], f"the gateway left processes behind: {left}"
