"""What to listen on and what to run, as `wattgate up` or `wattgate reload` wrote it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Address", "Plan"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """One listening socket, and the setting to name when it cannot be had."""

    host: str
    port: int
    setting: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One generation."""

    path: Path
    gateway: Address
    control: Address
    workers: int
    bus: Path
    desk: Path
    cores: tuple[int, ...]
    """For the planes; empty: wherever the launcher may run."""
    drain_timeout_s: float
    control_argv: tuple[str, ...]
    gateway_argv: tuple[str, ...]
    reload_argv: tuple[str, ...]
    """Asks for a reload of the same file; what SIGHUP runs."""

    @classmethod
    def read(cls, path: Path) -> Plan:
        """Raises `OSError`, `ValueError` or `KeyError` if it is no plan."""
        data = json.loads(path.read_text(encoding="utf-8"))
        return cls(
            path=path,
            gateway=_address(data, "gateway"),
            control=_address(data, "control"),
            workers=int(data["gateway"]["workers"]),
            bus=Path(data["bus"]),
            desk=Path(data["desk"]),
            cores=tuple(data["cores"]),
            drain_timeout_s=float(data["drain_timeout_s"]),
            control_argv=tuple(data["control_argv"]),
            gateway_argv=tuple(data["gateway_argv"]),
            reload_argv=tuple(data["reload_argv"]),
        )


def _address(data: dict[str, Any], section: str) -> Address:
    return Address(host=data[section]["host"], port=int(data[section]["port"]), setting=f"{section}.port")
