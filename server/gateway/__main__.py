"""The process of one worker: `python -m server.gateway`, started by the launcher."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import secrets
import signal
import socket
from collections.abc import Sequence
from math import ceil
from pathlib import Path
from types import FrameType

import uvicorn
import uvloop

from server.clock import SystemClock
from server.config.settings import GatewaySettings
from server.gateway.app import create_app
from server.gateway.listener import listener_config
from server.gateway.worker import Identity, Worker
from server.units import Seconds

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve on the inherited socket until SIGTERM or a drain, then finish what runs and hand over the records."""
    options = _parse(arguments)
    logging.basicConfig(level=logging.INFO, format=f"%(asctime)s worker-{options.slot} %(levelname)s %(message)s")
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    settings = GatewaySettings.model_validate_json(options.settings.read_bytes())
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(settings, options.slot, options.listen_fd, options.bus))


async def _serve(settings: GatewaySettings, slot: int, listen_fd: int, bus: Path) -> None:
    def drain(timeout: Seconds) -> None:
        server.config.timeout_graceful_shutdown = ceil(timeout)
        server.should_exit = True

    def stop(_signal: int, _frame: FrameType | None) -> None:
        server.should_exit = True

    identity = Identity(slot=slot, pid=os.getpid(), boot=secrets.token_hex(8))
    worker = Worker(settings, identity, bus=bus, clock=SystemClock(), on_drain=drain)
    drain_timeout, idle_timeout = Seconds(settings.drain_timeout_s), Seconds(settings.idle_timeout_s)
    server = uvicorn.Server(listener_config(create_app(worker), drain_timeout=drain_timeout, idle_timeout=idle_timeout))
    # uvicorn handles both while it serves and raises them again afterwards: here they must not kill.
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    gc.collect()
    gc.set_threshold(50_000, 20, 20)
    gc.freeze()  # what is there now stays: no collection need look at it again
    async with worker.alive():
        await server.serve(sockets=[socket.socket(fileno=listen_fd)])


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m server.gateway", description=__doc__)
    parser.add_argument("--settings", type=Path, required=True, help="JSON file with the gateway's settings")
    parser.add_argument("--slot", type=int, required=True, help="number of the listening socket, from 0")
    parser.add_argument("--listen-fd", type=int, required=True, help="inherited descriptor of a listening socket")
    parser.add_argument("--bus", type=Path, required=True, help="the control plane's Unix socket")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
