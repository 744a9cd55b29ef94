"""The last lines of an engine's log."""

from __future__ import annotations

from pathlib import Path
from typing import Final

__all__ = ["last_lines"]

_BYTES_A_LINE: Final = 400
"""Read from the end for each line that is wanted."""


def last_lines(path: Path, count: int) -> list[str]:
    """Without line ends, the newest last; fewer where there are fewer, none where there is no file."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            start = max(0, size - count * _BYTES_A_LINE)
            file.seek(start)
            data = file.read()
    except OSError:
        return []
    lines = data.decode("utf-8", errors="replace").splitlines()
    return (lines[1:] if start else lines)[-count:]
