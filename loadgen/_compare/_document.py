"""A YAML file whose every complaint names a key and a line."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from loadgen._errors import LoadError

__all__ = ["PlanError", "Section", "read_document"]


class PlanError(LoadError):
    """The plan is wrong; nothing was started."""


class Section:
    """A mapping of the file. What is taken is checked; `close` complains of what nobody took."""

    def __init__(self, node: yaml.Node, file: Path, path: str = "") -> None:
        self._file, self._path, self._node = file, path, node
        if not isinstance(node, yaml.MappingNode):
            raise self.error("must be a mapping, `key: value` lines")
        self._values: dict[str, yaml.Node] = {}
        self._lines: dict[str, int] = {}
        self._asked: list[str] = []
        for key, value in node.value:
            name = str(key.value)
            if name in self._values:
                raise self._complaint(name, key.start_mark.line + 1, "stands there twice")
            self._values[name], self._lines[name] = value, key.start_mark.line + 1

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def error(self, message: str, key: str | None = None) -> PlanError:
        """Of this section, or of one of its keys."""
        line = self._lines[key] if key is not None and key in self._lines else self._node.start_mark.line + 1
        return self._complaint(key, line, message)

    def text(self, key: str, default: str | None = None) -> str:
        value = self._plain(key, default)
        if not isinstance(value, str) or not value:
            raise self.error(f"must be a text, not {value!r}" if value is not None else "is missing", key)
        return value

    def number(self, key: str, default: float | None = None, *, above: float = -math.inf) -> float:
        value = self._plain(key, default)
        if value is None:
            raise self.error("is missing", key)
        return self._number(value, key, above)

    def whole(self, key: str, default: int | None = None, *, lowest: int = 0) -> int:
        value = self._plain(key, default)
        if value is None or isinstance(value, bool) or not isinstance(value, int) or value < lowest:
            raise self.error(f"must be a whole number of at least {lowest}, not {value!r}", key)
        return value

    def numbers(self, key: str, *, above: float = 0.0) -> tuple[float, ...]:
        """A list, ascending; empty where the key is absent."""
        value = self._plain(key, [])
        if not isinstance(value, list):
            raise self.error(f"must be a list of numbers, not {value!r}", key)
        return tuple(sorted({self._number(item, key, above) for item in value}))

    def texts(self, key: str) -> tuple[str, ...]:
        value = self._plain(key, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self.error(f"must be a list of texts, not {value!r}", key)
        return tuple(value)

    def mapping(self, key: str) -> dict[str, Any]:
        """As it is; for options that others check. Empty where the key is absent."""
        value = self._plain(key, {})
        if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
            raise self.error("must be a mapping, `key: value` lines", key)
        return value

    def section(self, key: str) -> Section:
        """An empty one where the key is absent."""
        self._asked.append(key)
        node = self._values.get(key)
        if node is None:
            node = yaml.MappingNode("tag:yaml.org,2002:map", [], self._node.start_mark, self._node.end_mark)
        return Section(node, self._file, self._name(key))

    def sections(self) -> Iterator[tuple[str, Section]]:
        """Every key of this one, each a mapping."""
        for key in self._values:
            yield key, self.section(key)

    def is_mapping(self, key: str) -> bool:
        return isinstance(self._values.get(key), yaml.MappingNode)

    def close(self) -> None:
        for key in self._values:
            if key not in self._asked:
                close = difflib.get_close_matches(key, self._asked, n=1)
                hint = f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(sorted(set(self._asked)))}"
                raise self.error(f"is no key that is known here{hint}", key)

    def _plain(self, key: str, default: Any) -> Any:
        self._asked.append(key)
        if key not in self._values:
            return default
        loader = yaml.SafeLoader("")
        try:
            return loader.construct_document(self._values[key])
        except yaml.YAMLError as exc:
            raise self.error(f"cannot be read: {exc}", key) from exc
        finally:
            loader.dispose()

    def _number(self, value: Any, key: str, above: float) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise self.error(f"must be a number, not {value!r}", key)
        if not value > above:
            raise self.error(f"must be above {above:g}, not {value:g}", key)
        return float(value)

    def _name(self, key: str | None) -> str:
        return ".".join(part for part in (self._path, key) if part)

    def _complaint(self, key: str | None, line: int, message: str) -> PlanError:
        where = self._name(key)
        return PlanError(f"{self._file}, line {line}: {f'{where} ' if where else 'the plan '}{message}.")


def read_document(file: Path) -> Section:
    """Raises `PlanError`."""
    try:
        node = yaml.compose(file.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except OSError as exc:
        raise PlanError(f"{file} cannot be read: {exc.strerror}.") from exc
    except UnicodeDecodeError as exc:
        raise PlanError(f"{file} is not UTF-8 text: {exc.reason}.") from exc
    except yaml.YAMLError as exc:
        raise PlanError(f"{file} is not YAML: {' '.join(str(exc).split())}.") from exc
    if node is None:
        raise PlanError(f"{file} is empty. docs/compare.md shows a plan to start from.")
    return Section(node, file)
