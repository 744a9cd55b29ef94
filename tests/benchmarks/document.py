"""Where results go: sections of docs/benchmarks.md, and JSON files beside the programs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

__all__ = ["DOCUMENT", "markdown_table", "now", "with_section", "write_json", "write_section"]

DOCUMENT: Final = Path(__file__).parents[2] / "docs" / "benchmarks.md"
_RESULTS: Final = Path(__file__).parent / "results"


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table: the first column to the left, the others to the right."""
    rule = ["---", *("---:" for _ in header[1:])]
    return "\n".join("| " + " | ".join(_cell(text) for text in row) + " |" for row in (header, rule, *rows))


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def with_section(document: str, name: str, text: str) -> str:
    """The document with what stands between the markers of `name` replaced. Raises ValueError without them."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, found, rest = document.partition(begin)
    _, found_too, after = rest.partition(end)
    if not found or not found_too:
        raise ValueError(f"no markers of the section {name!r}")
    return f"{before}{begin}\n\n{text.strip()}\n\n{end}{after}"


def write_section(name: str, text: str) -> None:
    """Replace a section of docs/benchmarks.md."""
    DOCUMENT.write_text(with_section(DOCUMENT.read_text("utf-8"), name, text), "utf-8")


def write_json(name: str, run: Mapping[str, Any]) -> Path:
    """Keep a run's figures as results/NAME.json."""
    _RESULTS.mkdir(exist_ok=True)
    path = _RESULTS / f"{name}.json"
    path.write_text(json.dumps({"date": now(), **run}, indent=1) + "\n", "utf-8")
    return path


def now() -> str:
    """The date and time, UTC, to the minute."""
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
