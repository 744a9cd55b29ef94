"""The launcher: sockets that outlive workers, and no process that outlives it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.integration.fleet import free_port, wait_until

FAKE = [sys.executable, str(Path(__file__).parents[1] / "fakes" / "plane_process.py")]
BOUND_S = 20.0


def write_plan(folder: Path, *, workers: int = 1, control_argv: list[str] | None = None, **ports: int) -> Path:
    plan = {
        "gateway": {"host": "127.0.0.1", "port": ports.get("gateway") or free_port(), "workers": workers},
        "control": {"host": "127.0.0.1", "port": ports.get("control") or free_port()},
        "drain_timeout_s": 1.0,
        "bus": str(folder / "bus.sock"),
        "desk": str(folder / "launcher.sock"),
        "reload_argv": ["true"],
        "cores": [min(os.sched_getaffinity(0))],
        "control_argv": control_argv or [*FAKE, "control"],
        "gateway_argv": [*FAKE, "worker"],
    }
    path = folder / "plan.json"
    path.write_text(json.dumps(plan), encoding="utf-8")
    return path


class Launched:
    """A launcher under test and what it listens on."""

    def __init__(self, plan: Path) -> None:
        self.plan: dict[str, Any] = json.loads(plan.read_text(encoding="utf-8"))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "server.launcher", str(plan)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def ask(self, plane: str) -> int:
        """The pid of the process that answers on a plane's port."""
        address = (self.plan[plane]["host"], self.plan[plane]["port"])
        with socket.create_connection(address, timeout=BOUND_S / 4) as connection:
            return int(connection.recv(32))

    def asks(self, plane: str) -> int | None:
        """The same, None while nobody answers."""
        try:
            return self.ask(plane)
        except (OSError, ValueError):
            return None

    def answers(self) -> bool:
        return self.asks("control") is not None and self.asks("gateway") is not None

    def family(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def close(self) -> str:
        for process in self.family() if self.process.poll() is None else []:
            with contextlib.suppress(psutil.Error):
                process.kill()
        self.process.kill()
        return self.process.communicate(timeout=BOUND_S)[1].decode()


@pytest.fixture
def launched(tmp_path: Path) -> Iterator[Launched]:
    running = Launched(write_plan(tmp_path))
    try:
        wait_until(running.answers, bound_s=BOUND_S, what="both planes answer")
        yield running
    finally:
        running.close()


def kill(pid: int) -> None:
    """SIGKILL, and wait until the process no longer answers."""
    process = psutil.Process(pid)
    process.kill()
    process.wait(BOUND_S)


def test_killed_worker_is_replaced_and_no_connection_is_refused(launched: Launched) -> None:
    first = launched.ask("gateway")
    for _ in range(3):
        kill(launched.ask("gateway"))
        assert launched.ask("gateway") > 0  # waits in the backlog of the socket that the launcher holds
    assert launched.ask("gateway") != first


def test_killed_control_plane_is_replaced_and_the_worker_stays(launched: Launched) -> None:
    worker, control = launched.ask("gateway"), launched.ask("control")
    kill(control)
    assert launched.ask("control") != control
    assert launched.ask("gateway") == worker


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_everybody_daemons_included(launched: Launched, number: signal.Signals) -> None:
    family = launched.family()
    assert len(family) == 3, family  # control plane, its daemon, worker
    launched.process.send_signal(number)
    assert launched.process.wait(BOUND_S) == 0
    assert [process for process in family if process.is_running()] == []


def test_death_of_the_launcher_takes_the_planes_along(launched: Launched) -> None:
    planes = [psutil.Process(launched.ask("gateway")), psutil.Process(launched.ask("control"))]
    daemon = [process for process in launched.family() if process not in planes]
    launched.process.kill()
    launched.process.wait(BOUND_S)
    _, left = psutil.wait_procs(planes, timeout=BOUND_S)
    for process in daemon:  # a keeper watches the launcher itself; this stand-in does not
        process.kill()
    assert left == []


def test_planes_stay_on_their_cores_and_the_launcher_does_not(launched: Launched) -> None:
    first = min(os.sched_getaffinity(0))
    assert os.sched_getaffinity(launched.ask("gateway")) == {first}
    assert os.sched_getaffinity(launched.ask("control")) == {first}
    assert os.sched_getaffinity(launched.process.pid) == os.sched_getaffinity(0)


def test_plane_that_cannot_be_started_is_tried_again_and_ends_nothing(tmp_path: Path) -> None:
    program = tmp_path / "plane"
    running = Launched(write_plan(tmp_path, control_argv=[str(program)]))
    try:
        worker = wait_until(lambda: running.asks("gateway"), bound_s=BOUND_S, what="the worker answers")
        program.write_text(f'#!/bin/sh\nexec {" ".join(FAKE)} control "$@"\n', encoding="utf-8")
        program.chmod(0o755)
        wait_until(lambda: running.asks("control"), bound_s=BOUND_S, what="the control plane answers")
        assert running.ask("gateway") == worker
    finally:
        assert "could not be started" in running.close()


def test_several_workers_share_the_port(tmp_path: Path) -> None:
    running = Launched(write_plan(tmp_path, workers=2))
    try:
        wait_until(running.answers, bound_s=BOUND_S, what="both planes answer")
        seen: set[int] = set()
        wait_until(lambda: seen.add(running.ask("gateway")) or len(seen) == 2, bound_s=BOUND_S, what="two workers")
    finally:
        running.close()


@pytest.mark.parametrize(("plane", "workers"), [("gateway", 1), ("gateway", 2), ("control", 1)])
def test_port_in_use_is_named_with_its_setting(tmp_path: Path, plane: str, workers: int) -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        plan = write_plan(tmp_path, workers=workers, **{plane: port})
        argv = [sys.executable, "-m", "server.launcher", str(plan)]
        ended = subprocess.run(argv, capture_output=True, text=True, timeout=BOUND_S, check=False)
    assert ended.returncode == 3
    assert f"port {port}" in ended.stderr
    assert f"`{plane}.port`" in ended.stderr


def test_control_plane_that_has_nothing_to_serve_ends_it_all(tmp_path: Path) -> None:
    running = Launched(write_plan(tmp_path, control_argv=[*FAKE, "control", "--exit-with", "70"]))
    assert running.process.wait(BOUND_S) == 1
    running.close()
