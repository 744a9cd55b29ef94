"""A launcher with planes that only say who they are."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psutil

from tests.integration.fleet import free_port

__all__ = ["BOUND_S", "FAKE", "Launched", "kill", "pids_with", "write_plan"]

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


def kill(pid: int) -> None:
    """SIGKILL, and wait until the process no longer answers."""
    process = psutil.Process(pid)
    process.kill()
    process.wait(BOUND_S)


def pids_with(word: str, processes: Iterable[psutil.Process]) -> set[int]:
    """Those of the processes that have this word in their command lines."""
    found = set()
    for process in processes:
        with contextlib.suppress(psutil.Error):  # it has just ended
            if word in process.cmdline():
                found.add(process.pid)
    return found
