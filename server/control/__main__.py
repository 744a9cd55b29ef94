"""`python -m server.control`: the control plane, as the launcher starts it."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import socket
import sys
from functools import partial
from pathlib import Path

import uvloop

from server.clock import SystemClock
from server.config import Config
from server.control.app import ControlPlane

__all__ = ["main"]


def main() -> int:
    """Run until a signal; the exit status 70 says that nothing can be served (see server/console.py)."""
    parser = argparse.ArgumentParser(prog="python -m server.control")
    parser.add_argument("--config", type=Path, required=True, help="the resolved configuration, JSON")
    parser.add_argument("--runtime", type=Path, required=True)
    parser.add_argument("--listen-fd", type=int, required=True)
    parser.add_argument("--bus-fd", type=int, required=True)
    parser.add_argument("--launcher-pid", type=int, required=True)
    parser.add_argument("--ready-fd", type=int, required=True, help="gets a byte with the first routing table")
    arguments = parser.parse_args()
    _give_way()
    logging.basicConfig(level=logging.WARNING, format="wattgate: %(message)s")
    config = Config.model_validate_json(arguments.config.read_bytes())
    with socket.socket(fileno=arguments.listen_fd) as listener, socket.socket(fileno=arguments.bus_fd) as bus:
        plane = ControlPlane(
            config, runtime_dir=arguments.runtime, launcher_pid=arguments.launcher_pid, clock=SystemClock()
        )
        gc.freeze()  # what is loaded now lives as long as the process: no collection need look at it
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(plane.run(listener, bus, ready=partial(_tell_ready, arguments.ready_fd)))


def _give_way() -> None:
    """Let a worker go first where both want the same core: requests wait for workers, nobody waits for this process.

    It does not run less for that, and what it starts (engines, threads) is not meant.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_BATCH | os.SCHED_RESET_ON_FORK, os.sched_param(0))
    except OSError:  # a sandbox may forbid it, and nothing depends on it
        logging.getLogger(__name__).debug("the control plane could not be made to give way")


def _tell_ready(pipe: int) -> None:
    os.write(pipe, b"!")
    os.close(pipe)


if __name__ == "__main__":
    sys.exit(main())
