"""A YAML file as values that know their line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from quant.errors import RecipeError

__all__ = ["Entry", "read_entries"]

_LARGEST: Final = 1_000_000  # bytes


@dataclass(frozen=True, slots=True)
class Entry:
    """One value, and where it stands."""

    path: Path
    line: int
    key: str  # from the file's top: "variants.int4.group_size"
    value: Any  # a scalar, a list of scalars, or dict[str, Entry]

    def wrong(self, what: str) -> RecipeError:
        """An error that names file, line and key; `what` continues after the key."""
        return RecipeError(f"{self.path}, line {self.line}: {self.key or 'the recipe'} {what}")

    def mapping(self) -> dict[str, Entry]:
        """The entries inside. Raises `RecipeError` if this is no mapping."""
        if not isinstance(self.value, dict):
            raise self.wrong("must be a mapping of keys to values.")
        return self.value


def read_entries(path: Path) -> Entry:
    """The file's one document. Raises `RecipeError`."""
    try:
        if path.stat().st_size > _LARGEST:
            raise RecipeError(f"{path} is larger than {_LARGEST:,} bytes, so it is no recipe.")
        node = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except OSError as exc:
        raise RecipeError(f"{path} cannot be read: {exc.strerror or exc}. Check the path.") from exc
    except UnicodeDecodeError as exc:
        raise RecipeError(f"{path} is no UTF-8 text: {exc}.") from exc
    except yaml.MarkedYAMLError as exc:
        line = exc.problem_mark.line + 1 if exc.problem_mark else 1
        raise RecipeError(f"{path}, line {line}: this is no YAML: {exc.problem}.") from exc
    except (yaml.YAMLError, RecursionError) as exc:
        raise RecipeError(f"{path} is no YAML: {exc}.") from exc
    if node is None:
        raise RecipeError(f"{path} is empty. Give at least `source` and `variants`.")
    return _entry(node, path, "", depth=3)


def _entry(node: yaml.Node, path: Path, key: str, depth: int) -> Entry:
    place = Entry(path, node.start_mark.line + 1, key, None)
    if isinstance(node, yaml.MappingNode):
        if not depth:
            raise place.wrong("is nested too deeply.")
        return Entry(path, place.line, key, _mapping(node, place, depth))
    if isinstance(node, yaml.SequenceNode):
        if not all(isinstance(item, yaml.ScalarNode) for item in node.value):
            raise place.wrong("must be a list of single values.")
        return Entry(path, place.line, key, [_scalar(item, place) for item in node.value])
    return Entry(path, place.line, key, _scalar(node, place))


def _mapping(node: yaml.MappingNode, place: Entry, depth: int) -> dict[str, Entry]:
    found: dict[str, Entry] = {}
    for name_node, value_node in node.value:
        name = _scalar(name_node, place) if isinstance(name_node, yaml.ScalarNode) else None
        inner = f"{place.key}.{name}".lstrip(".")
        here = Entry(place.path, name_node.start_mark.line + 1, inner, None)
        if not isinstance(name, str):
            raise here.wrong("is no name. Put it in quotes.")
        if name in found:
            raise here.wrong(f"stands here a second time; the first is in line {found[name].line}.")
        found[name] = _entry(value_node, place.path, inner, depth - 1)
        if not isinstance(value_node, yaml.MappingNode):
            continue
        found[name] = Entry(place.path, here.line, inner, found[name].value)  # a block's line is its key's
    return found


def _scalar(node: yaml.Node, place: Entry) -> Any:
    try:
        return yaml.SafeLoader("").construct_object(node)
    except (yaml.YAMLError, ValueError) as exc:
        raise Entry(place.path, node.start_mark.line + 1, place.key, None).wrong(
            f"holds {node.value!r}: {exc}"
        ) from exc
