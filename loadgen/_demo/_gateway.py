"""`wattgate up` as a child process: waits until every engine and adapter serves."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx

from loadgen._demo._board import Board
from loadgen._demo._config import DemoConfig
from loadgen._demo._processes import Children, last_lines
from loadgen._errors import LoadError
from loadgen._secrets import control_headers, gateway_headers

__all__ = ["RunningGateway"]

_REQUEST_TIMEOUT_S: Final = 3.0
_ENGINES_S: Final = 300.0
_ADAPTERS_S: Final = 90.0
_POLL_S: Final = 0.5
_STOP_S: Final = 45.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningGateway:
    """The gateway that the demo has started."""

    config: DemoConfig
    process: subprocess.Popen[bytes]
    log: Path
    children: Children

    @classmethod
    def start(
        cls, config: DemoConfig, command: Sequence[str], *, log: Path, cwd: Path, children: Children
    ) -> RunningGateway:
        process = children.start(command, log=log, cwd=cwd, grace_s=_STOP_S)
        return cls(config=config, process=process, log=log, children=children)

    def wait_for_engines(self, board: Board) -> None:
        """Until all are ready. Raises `LoadError` with the engine's own explanation as soon as one has failed."""
        until = time.monotonic() + _ENGINES_S
        while True:
            self.refuse_if_ended()
            status = self.status()
            engines = status["engines"] if status else []
            for engine in engines:
                _show(board, engine)
            if engines and all(engine["state"] == "ready" for engine in engines):
                return
            if time.monotonic() > until:
                raise LoadError(
                    f"The engines were not ready within {_ENGINES_S:g} s; see {self.log} and the engines' logs."
                )
            self.children.pause(_POLL_S)

    def wait_for_adapters(self, board: Board) -> None:
        """Until clients can ask for each. Raises `LoadError` with what the control plane says of the missing one."""
        until = time.monotonic() + _ADAPTERS_S
        missing = self.config.adapter_ids()
        while missing:
            self.refuse_if_ended()
            listed = self._listed()
            for id_ in self.config.adapter_ids():
                board.show(id_, "serves" if id_ in listed else "loading", done=id_ in listed)
            missing = [id_ for id_ in missing if id_ not in listed]
            if missing and time.monotonic() > until:
                raise LoadError(
                    f"The adapter {missing[0]} does not serve after {_ADAPTERS_S:g} s: {self._reason(missing[0])}"
                )
            if missing:
                self.children.pause(_POLL_S)

    def refuse_if_ended(self) -> None:
        """Raises `LoadError` if the gateway runs no more."""
        if self.process.poll() is not None:
            raise LoadError(f"The gateway has ended (status {self.process.returncode}):\n{last_lines(self.log)}")

    def status(self) -> Mapping[str, Any] | None:
        """What the control API says; None while it does not answer."""
        return _get(f"{self.config.control_url}/api/status", control_headers())

    def engines(self) -> dict[str, Mapping[str, Any]]:
        """The control API's engines by their public id."""
        status = self.status() or {}
        return {f"{engine['model']}:{engine['variant']}": engine for engine in status.get("engines", ())}

    def _listed(self) -> set[str]:
        models = _get(f"{self.config.gateway_url}/v1/models", gateway_headers()) or {}
        return {entry["id"] for entry in models.get("data", ())}

    def _reason(self, id_: str) -> str:
        name, _, variant = id_.rpartition(":")
        engines = [engine.name for engine in self.config.engines if engine.variant == variant]
        for adapter in (self.status() or {}).get("adapters", ()):
            for engine, replica in adapter["replicas"].items():
                if adapter["name"] == name and engine in engines:
                    return f"{replica.get('state')}: {replica.get('reason') or 'no reason given'}"
        return f"the control plane does not know it; see {self.log}"


def _show(board: Board, engine: Mapping[str, Any]) -> None:
    state = str(engine["state"])
    if state == "failed":
        raise LoadError(f"Engine {engine['name']} failed: {engine['problem']}\nIts log: {engine['log_path']}")
    restarts = f", restarted {engine['restarts']} times" if engine.get("restarts") else ""
    problem = f": {engine['problem']}" if engine.get("problem") else ""
    board.show(engine["name"], f"{state}{restarts}{problem}", done=state == "ready")


def _get(url: str, headers: Mapping[str, str]) -> Mapping[str, Any] | None:
    try:
        answer = httpx.get(url, headers=headers, timeout=_REQUEST_TIMEOUT_S)
        data = answer.json() if answer.is_success else None
    except (httpx.HTTPError, ValueError):
        return None
    return data if isinstance(data, dict) else None
