"""Another node: a meter agent on a real socket."""

from __future__ import annotations

import socket
import threading
from collections.abc import Sequence
from typing import Any

import uvicorn

from server.clock import Clock
from server.energy import EnergyMeter
from server.energy.agent import MeterAgent

__all__ = ["MeterNode"]


class MeterNode:
    """Serves these meters until `stop`; `answers` counts the answers that it gave."""

    def __init__(self, meters: Sequence[EnergyMeter], *, clock: Clock, token: str | None = None) -> None:
        self._agent = MeterAgent(meters, clock=clock, token=token)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self.answers = 0
        self._answered = threading.Condition()
        config = uvicorn.Config(self._app, interface="asgi3", log_config=None, access_log=False, lifespan="off")
        self._server = uvicorn.Server(config)
        # The socket takes connections already, so nobody has to wait for the thread.
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]}, daemon=True)
        self._thread.start()

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        await self._agent(scope, receive, send)
        with self._answered:
            self.answers += 1
            self._answered.notify_all()

    def wait_answers(self, more: int, within_s: float = 10.0) -> None:
        """Until it has answered `more` times from now on."""
        with self._answered:
            wanted = self.answers + more
            assert self._answered.wait_for(lambda: self.answers >= wanted, within_s), "nobody asks this node"

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(10.0)
        assert not self._thread.is_alive()
