"""Files that are whole, or as they were."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

__all__ = ["write_whole"]


def write_whole(path: Path, parts: Iterable[str]) -> None:
    """By a rename: a reader sees the old file or the whole new one. Raises `OSError`."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    with unfinished.open("w", encoding="utf-8", newline="") as file:
        file.writelines(parts)
    unfinished.replace(path)
