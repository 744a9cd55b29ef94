"""A JSON file of a checkpoint, checked where it is read."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, Final

from server.errors import CheckpointError

__all__ = ["Document", "parse_object", "read_document"]

_LARGEST: Final = 2**53
"""No count in a checkpoint is larger; beyond it a float is no longer exact."""


class Document:
    """A JSON object; a key of the wrong type raises `CheckpointError` with file, key and what was found.

    An absent key and a null are the same: None.
    """

    __slots__ = ("_data", "_where", "path")

    def __init__(self, path: Path, data: dict[str, Any], where: str = "") -> None:
        self.path = path
        self._data = data
        self._where = where

    def __contains__(self, key: str) -> bool:
        return self._data.get(key) is not None

    def keys(self) -> tuple[str, ...]:
        return tuple(self._data)

    def integer(self, key: str, *, least: int = 0) -> int | None:
        value = self._data.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= _LARGEST:
            raise self.wrong(key, f"a whole number of at least {least}")
        return value

    def number(self, key: str) -> float | None:
        value = self._data.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= _LARGEST:
            raise self.wrong(key, "a number")
        return float(value)

    def text(self, key: str) -> str | None:
        value = self._data.get(key)
        if value is not None and not isinstance(value, str):
            raise self.wrong(key, "a text")
        return value

    def flag(self, key: str) -> bool | None:
        value = self._data.get(key)
        if value is not None and not isinstance(value, bool):
            raise self.wrong(key, "true or false")
        return value

    def texts(self, key: str) -> tuple[str, ...] | None:
        """A list of texts; one text alone counts as a list of one."""
        value = self._data.get(key)
        if value is None:
            return None
        if isinstance(value, str):
            return (value,)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self.wrong(key, "a list of texts")
        return tuple(value)

    def child(self, key: str) -> Document | None:
        value = self._data.get(key)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self.wrong(key, "an object")
        return Document(self.path, value, f"{self._where}{key}.")

    def raw(self, key: str) -> Any:
        """Whatever stands there, for keys of several types."""
        return self._data.get(key)

    def wrong(self, key: str, expected: str) -> CheckpointError:
        found = _shown(self._data.get(key))
        return CheckpointError(
            f"{self.path}: `{self._where}{key}` is {found}, expected {expected}. Export or download the files again."
        )


def read_document(path: Path) -> Document:
    """Read a JSON file that must hold an object. The caller has made sure that it exists."""
    try:
        text = path.read_bytes()
    except OSError as exc:
        raise CheckpointError(
            f"{path}: cannot be read ({exc.strerror or exc}). Check the path and its rights."
        ) from exc
    return Document(path, parse_object(text, path, "the file"))


def parse_object(text: bytes, path: Path, what: str) -> dict[str, Any]:
    """Parse a JSON object; `what` names the part of the file in the error."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as exc:  # a number of too many digits and wrong UTF-8 are ValueErrors, too
        raise CheckpointError(f"{path}: {what} is not valid JSON ({exc}). Export or download the files again.") from exc
    if not isinstance(data, dict):
        raise CheckpointError(f"{path}: {what} must hold a JSON object, found {_shown(data)}.")
    return data


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, float) and not math.isfinite(value):
        return "not a finite number"
    if isinstance(value, int) and abs(value) > _LARGEST:
        return "a number too large"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
