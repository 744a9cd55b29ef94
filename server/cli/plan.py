"""What `wattgate up` and `wattgate reload` write for the launcher and those it starts."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from server.config import Config
from server.config.paths import desk_path, next_config_path
from server.control.cores import gateway_cores

__all__ = ["forget_plans", "write_next_config", "write_plan"]

_KINDS = ("config", "gateway", "plan")


def write_plan(config: Config, runtime: Path, *, source: Path, launcher_pid: int = 0) -> Path:
    """Everything the launcher needs, and the resolved configuration for those it starts; returns the plan's path.

    Each plan has files of its own: whoever started by an earlier one may need his once more.
    """
    number = 1 + max((int(path.stem.rpartition("-")[2]) for path in runtime.glob("plan-*.json")), default=0)
    settings, gateway, path = (runtime / f"{kind}-{number}.json" for kind in _KINDS)
    _write_private(settings, config.model_dump_json())
    _write_private(gateway, config.gateway.model_dump_json())
    bus = runtime / "bus.sock"
    plan = {
        "gateway": {"host": config.gateway.host, "port": config.gateway.port, "workers": config.gateway.workers},
        "control": {"host": config.control.host, "port": config.control.port},
        "drain_timeout_s": config.gateway.drain_timeout_s,
        "bus": str(bus),
        "desk": str(desk_path(runtime)),
        "cores": sorted(gateway_cores(config, launcher_pid)),
        "control_argv": [
            *(sys.executable, "-m", "server.control"),
            *("--config", str(settings), "--runtime", str(runtime)),
        ],
        "gateway_argv": [*(sys.executable, "-m", "server.gateway"), *("--settings", str(gateway), "--bus", str(bus))],
        "reload_argv": [*(sys.executable, "-m", "server", "reload"), *("--config", str(source.resolve()))],
    }
    _write_private(path, json.dumps(plan))
    return path


def write_next_config(config: Config, runtime: Path) -> Path:
    """For the running control plane: what it will be followed by."""
    path = next_config_path(runtime)
    _write_private(path, config.model_dump_json())
    return path


def forget_plans(runtime: Path, *, but: Path | None = None) -> None:
    """Remove all plans but one, with their files."""
    kept = but.stem.rpartition("-")[2] if but else ""
    for kind in _KINDS:
        for path in runtime.glob(f"{kind}-*.json"):
            if path.stem != f"{kind}-{kept}":
                path.unlink(missing_ok=True)


def _write_private(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
