"""Boards to JSON files, and the comparison with the committed ones."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from grafana.boards import BOARDS, Board, build

__all__ = ["DASHBOARDS", "differences", "generate", "render"]

DASHBOARDS: Final = Path(__file__).parent / "dashboards"

_SHOWN_LINES: Final = 20
"""Of each file's difference; the rest is counted."""


def render(board: Board) -> str:
    """The dashboard's JSON: keys sorted, so that a change of source changes only what it means to."""
    return JSONEncoder(sort_keys=True, indent=2, ensure_ascii=False).encode(build(board)) + "\n"


def generate(folder: Path) -> list[Path]:
    """Write every dashboard into `folder`, remove the JSON of those that are gone; gives the files written."""
    for stray in _strays(folder):
        stray.unlink()
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, board in BOARDS.items():
        path = folder / f"{name}.json"
        path.write_text(render(board), encoding="utf-8")
        written.append(path)
    return written


def differences(folder: Path) -> list[str]:
    """What in `folder` is not what the source says, for people; empty if all is."""
    found = [f"{stray}: no dashboard of this name exists in grafana/boards/." for stray in _strays(folder)]
    for name, board in BOARDS.items():
        path = folder / f"{name}.json"
        if not path.exists():
            found.append(f"{path}: is missing.")
            continue
        found.extend(_difference(path, render(board)))
    return found


def _strays(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.json") if path.stem not in BOARDS)


def _difference(path: Path, expected: str) -> Iterator[str]:
    committed = path.read_text(encoding="utf-8")
    if committed == expected:
        return
    lines = list(
        difflib.unified_diff(
            committed.splitlines(), expected.splitlines(), fromfile="committed", tofile="generated", n=1, lineterm=""
        )
    )
    changed = sum(1 for line in lines[2:] if line[:1] in "+-")
    shown = "\n".join(f"    {line}" for line in lines[:_SHOWN_LINES])
    hidden = f"\n    … and {len(lines) - _SHOWN_LINES} more lines" if len(lines) > _SHOWN_LINES else ""
    yield f"{path}: {changed} lines differ from the source.\n{shown}{hidden}"
