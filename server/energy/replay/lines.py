"""Reads files with one JSON object a line, and counts what is odd in them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from server.errors import TraceError

__all__ = ["Fields", "Warnings", "read_lines"]

_LATEST: Final = 1e11
"""Seconds: 3000 years; beyond it the microseconds of a time are lost."""
_MOST_TOKENS: Final = 10**9

Warnings = Counter[str]
"""How often each oddity came; docs/energy.md says what is made of each."""


class Fields:
    """One line's object. What has no sensible value is None, and counted."""

    def __init__(self, values: dict[str, Any], warnings: Warnings) -> None:
        self.values = values
        self._warnings = warnings

    def time(self, name: str) -> float | None:
        """Seconds."""
        return self._number(name, -_LATEST, _LATEST)

    def amount(self, name: str, most: float) -> float | None:
        """Not negative."""
        return self._number(name, 0.0, most)

    def count(self, name: str) -> int | None:
        """A number of tokens."""
        value = self._number(name, 0.0, _MOST_TOKENS)
        if value is not None and value != int(value):
            self._ignored()
            return None
        return None if value is None else int(value)

    def text(self, name: str) -> str | None:
        """A name; an empty one is none."""
        value = self.values.get(name)
        if isinstance(value, str):
            return value or None
        if value is not None:
            self._ignored()
        return None

    def _number(self, name: str, least: float, most: float) -> float | None:
        value = self.values.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most:
            return value
        if value is not None:
            self._ignored()
        return None

    def _ignored(self) -> None:
        self._warnings["values_ignored"] += 1


def read_lines(path: Path, warnings: Warnings) -> Iterator[Fields]:
    """Each line's object; empty lines are left out. Raises `TraceError` for a line that holds none."""
    decode = msgspec.json.Decoder().decode
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                try:
                    values = decode(line.removeprefix(_BYTE_ORDER_MARK) if number == 1 else line)
                except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
                    raise TraceError(
                        f"{path}, line {number} is no JSON ({exc}): mend the line, or take it out."
                    ) from exc
                if not isinstance(values, dict):
                    raise TraceError(
                        f"{path}, line {number} is no JSON object but {type(values).__name__}: each line must be one."
                    )
                yield Fields(values, warnings)
    except OSError as exc:
        raise TraceError(f"{path} cannot be read ({exc.strerror}): check the name and who may read it.") from exc


_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
