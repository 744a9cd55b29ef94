"""Where a running gateway keeps its files."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

__all__ = ["desk_path", "next_config_path", "runtime_dir"]


def runtime_dir(state_dir: Path, environ: Mapping[str, str] | None = None) -> Path:
    """The short folder for sockets and process ids that belongs to `state_dir` (not created here).

    Short, because the path of a Unix socket has at most 107 bytes; derived, so that every command finds it.
    """
    environ = os.environ if environ is None else environ  # noqa: TID251  # configuration may read it
    name = hashlib.sha256(str(state_dir).encode()).hexdigest()[:10]
    base = environ.get("XDG_RUNTIME_DIR")
    if base and len(base) < 60 and Path(base).is_dir():
        return Path(base) / f"wattgate-{name}"
    return Path(environ.get("TMPDIR", "/tmp")) / f"wattgate-{os.getuid()}-{name}"  # noqa: S108  # made 0700 and owned


def desk_path(runtime: Path) -> Path:
    """The socket on which the launcher hears of reloads."""
    return runtime / "launcher.sock"


def next_config_path(runtime: Path) -> Path:
    """The configuration for which a control plane that hands over makes way."""
    return runtime / "next.json"
