"""The launcher goes over to another plan: successors first, and nothing lost where one does not come up."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import socket
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any

import psutil

from tests.integration.fleet import wait_until
from tests.server.launched import BOUND_S, Launched, kill, pids_with, write_plan


def take_terminal() -> None:
    """Make standard input the controlling terminal of a new session."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whoever runs the tests may have it ignored
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


class Visitor:
    """Somebody at the desk."""

    def __init__(self, launched: Launched) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(BOUND_S)
        self.socket.connect(launched.plan["desk"])
        self.lines = self.socket.makefile("r")

    def hears(self) -> dict[str, Any]:
        return dict(json.loads(self.lines.readline()))

    def asks(self, plan: Path) -> None:
        self.socket.sendall(f"{plan}\n".encode())

    def verdict(self) -> tuple[int, str]:
        said = []
        while "status" not in (heard := self.hears()):
            said.append(heard["say"])
        return heard["status"], "\n".join(said)

    def close(self) -> None:
        self.lines.close()
        self.socket.close()


def changed(launched: Launched, folder: Path, **changes: Any) -> Path:
    """A plan like the running one, but for some of it."""
    workers = changes.pop("workers", launched.plan["gateway"]["workers"])
    plan = {**launched.plan, **changes, "gateway": {**launched.plan["gateway"], "workers": workers}}
    path = folder / "next.json"
    path.write_text(json.dumps(plan), encoding="utf-8")
    return path


def reload(launched: Launched, plan: Path) -> tuple[int, str]:
    visitor = Visitor(launched)
    assert visitor.hears()["pid"] == launched.process.pid
    visitor.asks(plan)
    try:
        return visitor.verdict()
    finally:
        visitor.close()


def taken(launched: Launched) -> bool:
    """Whether the launcher itself still holds the gateway's port."""
    port = launched.plan["gateway"]["port"]
    held = psutil.Process(launched.process.pid).net_connections(kind="tcp")
    return any(connection.laddr.port == port for connection in held)


def workers(launched: Launched) -> set[int]:
    """The pids of all processes that play a worker."""
    return pids_with("worker", launched.family())


def test_all_planes_are_replaced_and_the_old_ones_end(launched: Launched, tmp_path: Path) -> None:
    before = {launched.ask("gateway"), launched.ask("control")}
    status, said = reload(launched, changed(launched, tmp_path))
    assert status == 0, said
    assert not before & {launched.ask("gateway"), launched.ask("control")}
    assert not any(psutil.pid_exists(pid) for pid in before)


def test_more_workers_and_fewer_and_every_socket_stays_served(launched: Launched, tmp_path: Path) -> None:
    assert reload(launched, changed(launched, tmp_path, workers=3))[0] == 0
    three = workers(launched)
    assert len(three) == 3
    seen: set[int] = set()
    wait_until(lambda: seen.add(launched.ask("gateway")) or seen == three, bound_s=BOUND_S, what="three workers")
    assert reload(launched, changed(launched, tmp_path, workers=1))[0] == 0
    (left,) = workers(launched)
    assert {launched.ask("gateway") for _ in range(30)} == {left}


def test_worker_that_does_not_come_up_leaves_the_old_one_serving(launched: Launched, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.touch()
    old = launched.ask("gateway")
    argv = [*launched.plan["gateway_argv"], "--broken", str(broken)]
    status, said = reload(launched, changed(launched, tmp_path, gateway_argv=argv))
    assert status == 1
    assert "worker 0 did not come up" in said
    assert launched.ask("gateway") == old
    kill(old)
    assert launched.ask("gateway") > 0  # as the old plan says: the new one would not come up


def test_control_plane_that_does_not_come_up_gives_way_to_the_old_settings(launched: Launched, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.touch()
    worker = launched.ask("gateway")
    argv = [*launched.plan["control_argv"], "--broken", str(broken)]
    status, said = reload(launched, changed(launched, tmp_path, control_argv=argv))
    assert status == 1
    assert "the old settings are back" in said
    wait_until(launched.answers, bound_s=BOUND_S, what="both planes answer")
    assert launched.ask("gateway") == worker


def test_control_plane_that_finds_nothing_to_serve_during_a_reload_does_not_end_the_gateway(
    launched: Launched, tmp_path: Path
) -> None:
    argv = [*launched.plan["control_argv"], "--exit-with", "70"]
    assert reload(launched, changed(launched, tmp_path, control_argv=argv))[0] == 1
    wait_until(launched.answers, bound_s=BOUND_S, what="both planes answer")


def test_plan_that_cannot_be_read_changes_nothing(launched: Launched, tmp_path: Path) -> None:
    before = launched.ask("gateway"), launched.ask("control")
    (tmp_path / "next.json").write_text("{")
    assert reload(launched, tmp_path / "next.json")[0] == 1
    assert before == (launched.ask("gateway"), launched.ask("control"))


def test_second_visitor_is_told_to_wait_and_may_come_when_the_first_has_gone(launched: Launched) -> None:
    first = Visitor(launched)
    assert first.hears()["plan"].endswith("plan.json")
    second = Visitor(launched)
    assert second.hears() == {"busy": True}
    first.close()

    def welcome() -> bool:
        visitor = Visitor(launched)
        try:
            return "pid" in visitor.hears()
        finally:
            visitor.close()

    wait_until(welcome, bound_s=BOUND_S, what="the desk is free")
    second.close()


def test_visitor_who_leaves_does_not_stop_the_reload(launched: Launched, tmp_path: Path) -> None:
    old = launched.ask("gateway")
    visitor = Visitor(launched)
    visitor.hears()
    visitor.asks(changed(launched, tmp_path))
    visitor.close()
    wait_until(lambda: launched.ask("gateway") != old, bound_s=BOUND_S, what="another worker")


def test_stop_during_a_reload_ends_everybody(launched: Launched, tmp_path: Path) -> None:
    deaf = [sys.executable, "-c", "import time; time.sleep(600)"]  # never says that it is ready
    visitor = Visitor(launched)
    visitor.hears()
    visitor.asks(changed(launched, tmp_path, gateway_argv=deaf))
    assert "new configuration" in visitor.hears()["say"]
    family = wait_until(
        lambda: len(found := launched.family()) == 5 and found, bound_s=BOUND_S, what="the successor runs, too"
    )
    launched.process.send_signal(signal.SIGTERM)
    assert launched.process.wait(BOUND_S) == 0
    assert [process for process in family if process.is_running()] == []
    visitor.close()


def test_hang_up_signal_runs_the_reload_command(tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    plan = write_plan(tmp_path)
    plan.write_text(json.dumps({**json.loads(plan.read_text()), "reload_argv": ["touch", str(asked)]}))
    running = Launched(plan)
    try:
        wait_until(running.answers, bound_s=BOUND_S, what="both planes answer")
        running.process.send_signal(signal.SIGHUP)
        wait_until(asked.exists, bound_s=BOUND_S, what="the command ran")
        assert running.process.poll() is None
    finally:
        running.close()


def test_second_signal_ends_a_drain(tmp_path: Path) -> None:
    deaf = tmp_path / "deaf"
    code = f"import pathlib, signal, time; signal.signal(15, signal.SIG_IGN); pathlib.Path({str(deaf)!r}).touch()"
    words = {"gateway_argv": [sys.executable, "-c", f"{code}; time.sleep(600)"], "drain_timeout_s": 600}
    plan = write_plan(tmp_path)
    plan.write_text(json.dumps({**json.loads(plan.read_text()), **words}))
    running = Launched(plan)
    try:
        wait_until(lambda: running.asks("control") and deaf.exists(), bound_s=BOUND_S, what="both planes run")
        running.process.send_signal(signal.SIGTERM)
        wait_until(lambda: not taken(running), bound_s=BOUND_S, what="no more clients are taken")
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(BOUND_S) == 0
    finally:
        running.close()


def test_gateway_ends_with_its_terminal(tmp_path: Path) -> None:
    plan = write_plan(tmp_path)
    leader, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "server.launcher", str(plan)],
        stdin=terminal,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=take_terminal,  # noqa: PLW1509  # no threads here
    )
    os.close(terminal)
    address = ("127.0.0.1", json.loads(plan.read_text())["control"]["port"])

    def answers() -> bool:
        try:
            with socket.create_connection(address, timeout=1) as connection:
                return bool(connection.recv(32))
        except OSError:
            return False

    try:
        wait_until(answers, bound_s=BOUND_S, what="the control plane answers")
        os.close(leader)
        assert process.wait(BOUND_S) == 0
    finally:
        process.kill()
        process.wait()
