"""An engine's log file: started afresh, read from its end."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

__all__ = ["last_lines", "rotate", "tail"]

_KEEP: Final = 3
"""Logs of earlier starts that stay beside the current one: `name.log.1` is the one before."""
_ANSI: Final = re.compile(r"\x1b\[[0-9;]*m")


def rotate(log: Path) -> None:
    """Move `log` out of the way of a new start."""
    log.parent.mkdir(parents=True, exist_ok=True)
    for number in range(_KEEP, 0, -1):
        older = log if number == 1 else log.with_name(f"{log.name}.{number - 1}")
        if older.exists():
            older.replace(log.with_name(f"{log.name}.{number}"))


def tail(log: Path, max_bytes: int = 64 * 1024) -> str:
    """The end of the log without colours; empty if there is none yet."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - max_bytes))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
    return _ANSI.sub("", text)


def last_lines(text: str, count: int = 12, width: int = 200) -> str:
    """The last lines that say something, cut to a screen's width and indented."""
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    return "\n".join(f"    {line[:width]}" for line in lines[-count:])
