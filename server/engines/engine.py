"""The contract of an engine's make: how to start it and talk to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from server.config import EngineSettings
from server.fleet import EngineGauges

__all__ = ["Call", "Command", "Engine", "Explanation", "StartSpec"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StartSpec:
    """Everything that decides how an engine is started, but its port and key."""

    settings: EngineSettings
    environment: Path
    """The virtual environment whose Python runs the engine."""
    served_names: tuple[str, ...]
    """What the engine answers to; answers name the first."""
    cores: tuple[int, ...]
    """The cores that its computing threads are bound to; empty: not bound."""
    gpus: tuple[int, ...]
    """Empty: it runs on the CPU."""
    gpu_share: float | None
    """Share of each GPU's memory, where several engines share it and the options do not say; None: the default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A program to execute: absolute path first, and what to set (None: to unset) in its environment."""

    argv: tuple[str, ...]
    env: Mapping[str, str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One HTTP POST to an engine."""

    path: str
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Why a start failed, in plain words."""

    cause: str
    advice: str
    permanent: bool
    """Another try would end the same way."""

    def __str__(self) -> str:
        return f"{self.cause} {self.advice}"


class Engine(Protocol):
    """A make of inference server. Stateless: one value serves all replicas of this make."""

    health_paths: tuple[str, ...]
    """Tried in this order; the first that exists (is neither 404 nor 405) tells the health: 2xx is healthy."""
    version_path: str | None
    """Answers `{"version": …}`; None: it does not say."""
    metrics_path: str | None
    """Answers Prometheus text; None: it has none."""
    takes_adapters: bool
    """Whether adapters can be loaded and unloaded while it runs."""

    def command(self, spec: StartSpec, *, port: int, api_key: str) -> Command:
        """How to start it on 127.0.0.1:`port`, guarded by `api_key`; the key stands in no argument.

        Raises `StartError` if its program is not installed (names the one command that installs it), or if this make
        cannot be started by this project at all. May run the program briefly (≤ 20 s), so call it in a thread.
        """

    def load_adapter(self, name: str, path: Path) -> Call:
        """The call that loads the adapter at `path` under `name`; only if `takes_adapters`."""

    def unload_adapter(self, name: str) -> Call:
        """The call that forgets the adapter `name`; only if `takes_adapters`."""

    def loaded_adapters(self, models: Mapping[str, Any]) -> dict[str, str]:
        """Name → path of the adapters that a `GET /v1/models` answer lists."""

    def probe(self, model: str, task: str) -> Call:
        """The smallest request that shows that it computes: one token, or one embedding, or one score of `model`."""

    def gauges(self, metrics_text: str) -> EngineGauges:
        """What its metrics say now; what they do not say is None. Costs ≤ 1 ms for 1,000 lines."""

    def phase(self, log: str) -> str:
        """What a starting engine is busy with, in a few words, by the last lines of its log."""

    def explain(self, log: str, *, killed_by: int | None) -> Explanation | None:
        """The likely cause of a failed start by its log and the signal that ended it; None: no idea."""
