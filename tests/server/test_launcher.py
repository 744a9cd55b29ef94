"""The launcher: sockets that outlive workers, and no process that outlives it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.integration.fleet import wait_until
from tests.server.launched import BOUND_S, FAKE, Launched, kill, write_plan


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
