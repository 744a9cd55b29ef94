"""One file per local engine: how the next control plane finds it."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from server.engines.engine import Command
from server.units import Seconds

__all__ = ["EngineRecord", "digest_of", "exit_file", "read_record", "record_file"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRecord:
    """Written by the keeper (0600, whole or not at all)."""

    name: str
    digest: str
    """What was started; see `digest_of`."""
    port: int
    api_key: str
    restarts: int
    log: str
    keeper: int
    keeper_start: int
    """With the pid, it names one process for ever."""
    engine: int
    """The root of the engine's process tree."""
    started_at: Seconds


def record_file(state_dir: Path, name: str) -> Path:
    return state_dir / f"{name}.json"


def exit_file(state_dir: Path, name: str) -> Path:
    return state_dir / f"{name}.exit"


def read_record(path: Path) -> EngineRecord | None:
    """None if there is none, or if another version of this project wrote it."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        data = json.loads(path.read_text(encoding="utf-8"))
        names = [field.name for field in dataclasses.fields(EngineRecord)]
        return EngineRecord(**{name: data[name] for name in names if name in data})
    return None


def digest_of(command: Command, checkpoint: str | None) -> str:
    """Equal if and only if a new start would be the same: program, flags, environment, the checkpoint's files.

    `command` must be made with a fixed port and key.
    """
    parts = [command.argv, sorted(command.env.items(), key=lambda item: item[0]), _files_of(checkpoint)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _files_of(checkpoint: str | None) -> list[tuple[str, int, int]]:
    folder = Path(checkpoint) if checkpoint and not checkpoint.startswith("hf:") else None
    if folder is None or not folder.is_dir():
        return []
    stats = [(file.name, file.stat()) for file in sorted(folder.iterdir()) if file.is_file()]
    return [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]
