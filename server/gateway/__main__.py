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
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Final

import uvicorn
import uvloop

from server.clock import SystemClock
from server.config.settings import GatewaySettings
from server.gateway.app import create_app
from server.gateway.listener import Listener
from server.gateway.path import serve
from server.gateway.worker import Identity, Worker
from server.units import Seconds

__all__ = ["main"]

_FIRST_TABLE: Final = Seconds(5.0)
"""Longest wait for a routing table: clients wait in the socket's queue meanwhile."""
_COLLECT_AFTER: Final = (5_000, 4, 200)
"""Everything waits for a collection: small ones often, of a few ms at most with thousands of streams, and a full one
after four million objects."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve on the inherited sockets until SIGTERM, then finish what runs and hand over the records."""
    options = _parse(arguments)
    logging.basicConfig(level=logging.INFO, format=f"%(asctime)s worker-{options.slot} %(levelname)s %(message)s")
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    settings = GatewaySettings.model_validate_json(options.settings.read_bytes())
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(settings, options))


async def _serve(settings: GatewaySettings, options: argparse.Namespace) -> None:
    def stop(_signal: int, _frame: FrameType | None) -> None:
        server.should_exit = True
        loop.call_soon_threadsafe(begin.set)

    loop, begin = asyncio.get_running_loop(), asyncio.Event()
    identity = Identity(slot=options.slot, pid=os.getpid(), boot=secrets.token_hex(8))
    worker = Worker(settings, identity, bus=options.bus, clock=SystemClock())
    listener = Listener(settings, partial(serve, worker), check_key=worker.keys.holder_of, clock=worker.clock)
    server = _Server(listener.config(create_app(worker)))
    # uvicorn handles both while it serves and raises them again afterwards: here they must not kill.
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    gc.collect()
    gc.set_threshold(*_COLLECT_AFTER)
    gc.freeze()  # what is there now stays: no collection need look at it again
    async with worker.alive():
        telling = asyncio.create_task(_tell_ready(options.ready_fd, server, worker, begin))
        with suppress(TimeoutError):
            async with asyncio.timeout(_FIRST_TABLE):  # without it every request would be refused
                await begin.wait()
        if not server.should_exit:
            await server.serve(sockets=[socket.socket(fileno=descriptor) for descriptor in options.listen_fd])
        telling.cancel()


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()


async def _tell_ready(pipe: int, server: _Server, worker: Worker, begin: asyncio.Event) -> None:
    """Let the worker begin with its first routing table, and tell the launcher once it serves by it."""
    await worker.informed.wait()
    begin.set()
    await server.listening.wait()
    os.write(pipe, b"!")
    os.close(pipe)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m server.gateway", description=__doc__)
    parser.add_argument("--settings", type=Path, required=True, help="JSON file with the gateway's settings")
    parser.add_argument("--slot", type=int, required=True, help="number of the listening socket, from 0")
    parser.add_argument(
        "--listen-fd", type=int, required=True, action="append", help="inherited descriptor of a listening socket"
    )
    parser.add_argument("--ready-fd", type=int, required=True, help="gets a byte once requests can be served")
    parser.add_argument("--bus", type=Path, required=True, help="the control plane's Unix socket")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
