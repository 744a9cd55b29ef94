"""What the demo needs to know of its configuration file, and the same file on other ports."""

from __future__ import annotations

import errno
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from loadgen._errors import LoadError

__all__ = ["DemoConfig", "Engine", "ports_in_use", "read_config", "write_on_ports"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """One engine of the file."""

    name: str
    model: str
    variant: str
    checkpoint: Path
    takes_adapters: bool

    @property
    def id(self) -> str:
        return f"{self.model}:{self.variant}"


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoConfig:
    """The part of the configuration that the demo works with; paths are absolute."""

    path: Path
    port: int
    control_port: int
    engine_python: Path
    engines: tuple[Engine, ...]
    adapters: tuple[tuple[str, str], ...]
    """(name, model)."""

    @property
    def gateway_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def control_url(self) -> str:
        return f"http://127.0.0.1:{self.control_port}"

    def adapter_ids(self) -> list[str]:
        """Every adapter on every engine that takes adapters of its model."""
        return [
            f"{name}:{engine.variant}"
            for name, model in self.adapters
            for engine in self.engines
            if engine.model == model and engine.takes_adapters
        ]

    def loaded_ids(self) -> list[str]:
        """What is put under load: each variant, then each adapter once, on one engine after the other."""
        chosen = []
        for number, (name, _) in enumerate(self.adapters):
            mine = [id_ for id_ in self.adapter_ids() if id_.rpartition(":")[0] == name]
            chosen += mine[number % len(mine) :][:1] if mine else []
        return [engine.id for engine in self.engines] + chosen


def read_config(path: Path) -> DemoConfig:
    """Raises `LoadError`; a full check is the gateway's own."""
    data, base = _load(path), path.resolve().parent
    try:
        return DemoConfig(
            path=path.resolve(),
            port=data["gateway"]["port"],
            control_port=data["control"]["port"],
            # Not resolved: a virtual environment's python is a link, and only its own path makes it that environment.
            engine_python=base / data["environments"]["engine"] / "bin" / "python",
            engines=tuple(
                Engine(
                    name=engine["name"],
                    model=engine["model"],
                    variant=engine["variant"],
                    checkpoint=(base / engine["checkpoint"]).resolve(),
                    takes_adapters="adapters" in engine,
                )
                for engine in data["engines"]
            ),
            adapters=tuple((adapter["name"], adapter["model"]) for adapter in data.get("adapters", ())),
        )
    except (KeyError, TypeError) as exc:
        raise LoadError(
            f"{path}: the demo needs ports, environments.engine, and engines with variant: {exc!r}"
        ) from exc


def write_on_ports(source: Path, target: Path, *, port: int, control_port: int) -> DemoConfig:
    """The same configuration on other ports, with a state folder of its own, so that two demos can run side by side."""
    data, base = _load(source), source.resolve().parent
    data["gateway"]["port"], data["control"]["port"] = port, control_port
    data["state_dir"] = f"{_absolute(base, data['state_dir'])}-{port}"
    # Not resolved, see `engine_python`.
    data["environments"] = {name: str(base / folder) for name, folder in data["environments"].items()}
    for entries, key in ((data["engines"], "checkpoint"), (data.get("adapters", []), "path")):
        for entry in entries:
            entry[key] = _absolute(base, entry[key])
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")
    return read_config(target)


def ports_in_use(ports: Sequence[int]) -> list[int]:
    """Those that nobody else may listen on."""
    return [port for port in ports if _in_use(port)]


def _in_use(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do: a port whose last connections are only lingering is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as exc:
            if exc.errno == errno.EADDRINUSE:
                return True
            raise LoadError(f"Port {port} cannot be used ({exc.strerror}); choose another with --port.") from exc
        return False


def _load(path: Path) -> dict[str, Any]:
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as exc:
        raise LoadError(f"The demo's configuration {path} cannot be read: {exc}") from exc
    if not isinstance(data, Mapping):
        raise LoadError(f"The demo's configuration {path} is no mapping.")
    return dict(data)


def _absolute(base: Path, path: str) -> str:
    return str((base / Path(path).expanduser()).resolve())
