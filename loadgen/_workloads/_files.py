"""Reads a workload's file line by line; an error names the line."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from loadgen._errors import LoadError

__all__ = ["FileLine", "lines_of"]


@dataclass(frozen=True, slots=True)
class FileLine:
    """A line that holds something."""

    file: str
    number: int
    """From 1, as editors count."""
    text: str

    def error(self, what: str) -> LoadError:
        return LoadError(f"{self.file}, line {self.number} {what}.")


def lines_of(file: str, *, most: int) -> Iterator[FileLine]:
    """Raises `LoadError` if the file cannot be read, is empty, or has more than `most` lines."""
    found = 0
    for found, line in enumerate(_filled(file), start=1):
        if found > most:
            raise line.error(f"is one too many: at most {most} are read; cut the file, or use its beginning (rows=)")
        yield line
    if not found:
        raise LoadError(f"{file} is empty; --workload-file needs at least one line with a request.")


def _filled(file: str) -> Iterator[FileLine]:
    try:
        with Path(file).open(encoding="utf-8-sig") as lines:
            for number, text in enumerate(lines, start=1):
                if text.strip():
                    yield FileLine(file, number, text.strip())
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "it is not UTF-8 text"
        raise LoadError(f"{file} cannot be read: {reason}. --workload-file must name a text file.") from exc
