"""Boards to JSON and rules to YAML, and the comparison with the committed files."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder

from grafana.boards import BOARDS, Board, build
from grafana.rules import RULES

__all__ = ["DASHBOARDS", "RULE_FILES", "differences", "generate", "render", "render_rules"]

DASHBOARDS: Final = Path(__file__).parent / "dashboards"
RULE_FILES: Final = Path(__file__).parents[1] / "deploy" / "prometheus" / "rules"

_SHOWN_LINES: Final = 20
"""Of each file's difference; the rest is counted."""
_WIDTH: Final = 1_000
"""Of a YAML line: an expression is not broken."""


def render(board: Board) -> str:
    """The dashboard's JSON: keys sorted, so that a change of source changes only what it means to."""
    return JSONEncoder(sort_keys=True, indent=2, ensure_ascii=False).encode(build(board)) + "\n"


def render_rules(name: str) -> str:
    """A file of rules."""
    groups = [group.to_yaml() for group in RULES[name]]
    text: str = yaml.safe_dump({"groups": groups}, sort_keys=False, width=_WIDTH, allow_unicode=True)
    return f"# Generated from grafana/rules/ by `make dashboards`: do not edit.\n{text}"


def generate(dashboards: Path, rules: Path) -> list[Path]:
    """Write every dashboard and every file of rules, remove those that are gone; gives the files written."""
    files = _files(dashboards, rules)
    for stray in _strays(dashboards, rules, files):
        stray.unlink()
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return list(files)


def differences(dashboards: Path, rules: Path) -> list[str]:
    """What in the folders is not what the source says, for people; empty if all is."""
    files = _files(dashboards, rules)
    found = [f"{stray}: its source is gone." for stray in _strays(dashboards, rules, files)]
    for path, text in files.items():
        if not path.exists():
            found.append(f"{path}: is missing.")
            continue
        found.extend(_difference(path, text))
    return found


def _files(dashboards: Path, rules: Path) -> Mapping[Path, str]:
    boards = {dashboards / f"{name}.json": render(board) for name, board in BOARDS.items()}
    return boards | {rules / f"{name}.yml": render_rules(name) for name in RULES}


def _strays(dashboards: Path, rules: Path, files: Mapping[Path, str]) -> list[Path]:
    there = [*dashboards.glob("*.json"), *rules.glob("*.yml")]
    return sorted(path for path in there if path not in files)


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
