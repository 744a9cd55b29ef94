"""What is put under load: a gateway that runs, or one that compare starts and reconfigures."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from rich.console import Console

from loadgen._compare._derived import derived, read_source, variant_of
from loadgen._compare._plan import ComparePlan, Configuration
from loadgen._compare._store import write_text
from loadgen._demo._board import Board
from loadgen._demo._config import DemoConfig, Engine
from loadgen._demo._gateway import RunningGateway
from loadgen._demo._processes import Children, last_lines
from loadgen._errors import LoadError

__all__ = ["Commands", "GivenTarget", "OwnGateway", "Target"]

_RELOAD_S: Final = 300.0
"""Requests that run may take `gateway.drain_timeout_s` to end; none runs between two loads."""


class Target(Protocol):
    """Where requests go."""

    @property
    def host(self) -> str: ...

    @property
    def control(self) -> str | None: ...

    def make_ready(self, configuration: Configuration) -> None:
        """Return when this configuration serves, with its engine options. May take minutes. Raises `LoadError`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenTarget:
    """Somebody else's server; it stays as it is."""

    host: str
    control: str | None

    def make_ready(self, configuration: Configuration) -> None:
        """It serves what it serves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Commands:
    """How the gateway is started and reconfigured with a configuration file."""

    up: Callable[[Path], list[str]]
    reload: Callable[[Path], list[str]]


class OwnGateway:
    """`wattgate up` as a child process; `wattgate reload` where engine options change."""

    def __init__(
        self, plan: ComparePlan, commands: Commands, *, folder: Path, root: Path, children: Children, console: Console
    ) -> None:
        assert plan.target.config is not None
        self._plan, self._config, self._commands = plan, plan.target.config, commands
        self._folder, self._root = folder, root
        self._children, self._console = children, console
        self._ports = _two_free_ports()
        self._gateway: RunningGateway | None = None
        self._running: str | None = None

    @property
    def host(self) -> str:
        return f"http://127.0.0.1:{self._ports[0]}"

    @property
    def control(self) -> str:
        return f"http://127.0.0.1:{self._ports[1]}"

    def make_ready(self, configuration: Configuration) -> None:
        text = derived(
            self._config, self._plan.configurations, configuration, ports=self._ports, state=self._folder / "state"
        )
        if self._gateway is not None:
            self._gateway.refuse_if_ended()
        if text == self._running:
            return
        file = self._folder / "gateway.yaml"
        write_text(file, text)
        title = "Starting engines" if self._gateway is None else f"Restarting an engine for {configuration.name}"
        with Board(self._console, title) as board:
            self._gateway = self._take_over(file, self._gateway)
            self._running = text
            self._gateway.wait_for_engines(board)
            self._gateway.wait_for_adapters(board)

    def _take_over(self, file: Path, gateway: RunningGateway | None) -> RunningGateway:
        log, config = self._folder / "gateway.log", _as_demo(file, self._ports)
        if gateway is None:
            return RunningGateway.start(
                config, self._commands.up(file), log=log, cwd=self._root, children=self._children
            )
        reload_log = self._folder / "reload.log"
        process = self._children.start(self._commands.reload(file), log=reload_log, cwd=self._root, grace_s=1.0)
        if self._children.wait(process, _RELOAD_S, "wattgate reload") != 0:
            raise LoadError(f"The engines could not be reconfigured:\n{last_lines(reload_log)}")
        return RunningGateway(config=config, process=gateway.process, log=log, children=self._children)


def _as_demo(file: Path, ports: tuple[int, int]) -> DemoConfig:
    """What it takes to wait for a gateway; engines that run elsewhere have no checkpoint."""
    data = read_source(file)
    return DemoConfig(
        path=file,
        port=ports[0],
        control_port=ports[1],
        engine_python=Path(data["environments"]["engine"]) / "bin" / "python",
        engines=tuple(
            Engine(
                name=engine["name"],
                model=engine["model"],
                variant=variant_of(engine),
                checkpoint=Path(engine.get("checkpoint", "")),
                takes_adapters="adapters" in engine,
            )
            for engine in data["engines"]
        ),
        adapters=tuple((adapter["name"], adapter["model"]) for adapter in data["adapters"]),
    )


def _two_free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        return one.getsockname()[1], other.getsockname()[1]
