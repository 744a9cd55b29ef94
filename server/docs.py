"""`python -m server.docs generate|check`: the tables of settings and metrics.

`docs/settings.md` is made from `server.config.settings`, `docs/metrics.md` from `server.telemetry.metrics`; neither is
ever edited by hand.
"""

from __future__ import annotations

import argparse
import difflib
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from server.config.settings import Config
from server.telemetry.metric import Kind, Metric
from server.telemetry.metrics import CATALOGUE

__all__ = ["PAGES", "main", "metrics_page", "settings_page"]

_FOLDER: Final = Path(__file__).parent.parent / "docs"
_SHOWN_LINES: Final = 20
_NOTE: Final = "<!-- Generated from {source} by `make docs`: do not edit. -->"

_UNITS: Final[Mapping[str, str]] = {
    "_s": "seconds",
    "_bytes": "bytes",
    "_gib": "GiB",
    "_gb": "GiB",  # vLLM's name for what it counts in GiB
    "_watts": "watts",
    "watts_per_core": "watts",
    "_tokens": "tokens",
    "_model_len": "tokens",
}
"""By the ending of a setting's name."""

_BOUNDS: Final[tuple[tuple[type, str, str], ...]] = (
    (Ge, "ge", "≥"),
    (Gt, "gt", ">"),
    (Le, "le", "≤"),
    (Lt, "lt", "<"),
    (MinLen, "min_length", "entries ≥"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Status 0: done, or nothing differs; 1: a page differs from its source; 2: wrong arguments."""
    parser = argparse.ArgumentParser(prog="python -m server.docs", description="The tables of settings and metrics.")
    parser.add_argument("command", choices=("generate", "check"))
    parser.add_argument("--folder", type=Path, default=_FOLDER, help="where the pages lie (default: %(default)s)")
    chosen = parser.parse_args(arguments)
    return _generate(chosen.folder) if chosen.command == "generate" else _check(chosen.folder)


def settings_page() -> str:
    """Every setting: key, type, unit, default, range, meaning; a table a section."""
    intro = (
        "# Settings\n\n"
        f"{_NOTE.format(source='server/config/settings.py')}\n\n"
        "One YAML file. Unknown keys refuse to start. Paths are relative to the file, `${NAME}` is replaced by the\n"
        "environment variable of that name, and `wattgate check FILE` says what is wrong with a file. "
        "`[]` marks a list.\n"
    )
    return "\n".join([intro, *_section("", Config, "The whole file.")])


def metrics_page() -> str:
    """Every metric: name, kind, labels, unit, meaning; a table a group, in the catalogue's order."""
    groups = dict.fromkeys(metric.group for metric in CATALOGUE.values())
    intro = (
        "# Metrics\n\n"
        f"{_NOTE.format(source='server/telemetry/metrics.py')}\n\n"
        "On the control port's `/metrics`, as Prometheus text or OpenMetrics. What is unknown is absent, never 0; a\n"
        "label that does not apply is `none`.\n"
    )
    tables = (_group(name, [metric for metric in CATALOGUE.values() if metric.group == name]) for name in groups)
    return "\n".join([intro, *tables])


PAGES: Final[Mapping[str, Callable[[], str]]] = {"settings.md": settings_page, "metrics.md": metrics_page}


def _generate(folder: Path) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    for name, page in PAGES.items():
        (folder / name).write_text(page(), encoding="utf-8")
        print(f"wrote {folder / name}")
    return 0


def _check(folder: Path) -> int:
    problems = [problem for name, page in PAGES.items() for problem in _difference(folder / name, page())]
    for problem in problems:
        print(problem, file=sys.stderr)
    if problems:
        print("Run `make docs` and commit the result.", file=sys.stderr)
    return 1 if problems else 0


def _difference(path: Path, expected: str) -> Iterator[str]:
    found = path.read_text(encoding="utf-8") if path.exists() else ""
    if found != expected:
        lines = list(difflib.unified_diff(found.splitlines(), expected.splitlines(), n=0, lineterm=""))
        shown = "\n".join(f"    {line}" for line in lines[2 : _SHOWN_LINES + 2])
        yield f"{path} differs from its source:\n{shown}"


# --- settings ---------------------------------------------------------------------------------------------------------


def _section(prefix: str, section: type[BaseModel], meaning: str) -> Iterator[str]:
    """The table of a section's own keys, then its sub-sections."""
    heading = f"## `{prefix}`" if prefix else "## Top level"
    below: list[tuple[str, type[BaseModel], str]] = []
    rows = []
    for key, field in section.model_fields.items():
        path = f"{prefix}.{key}" if prefix else key
        inner = _model_in(field.annotation)
        if inner is None:
            rows.append(_setting(path, field))
        else:
            listed = "[]" if _is_list(field.annotation) else ""
            below.append((f"{path}{listed}", inner, _section_meaning(inner, field)))
    head = ("Key", "Type", "Unit", "Default", "Range", "Meaning")
    yield (
        "\n\n".join(part for part in (heading, meaning, _table(head, rows) if rows else "") if part).rstrip("\n") + "\n"
    )
    for path, inner, inner_meaning in below:
        yield from _section(path, inner, inner_meaning)


def _setting(path: str, field: FieldInfo) -> tuple[str, ...]:
    return (
        f"`{path}`",
        _type_name(field.annotation),
        _unit(path),
        _default(field),
        _range(field),
        field.description or "",
    )


def _section_meaning(section: type[BaseModel], field: FieldInfo) -> str:
    own_words = section.__dict__.get("__doc__") or ""  # a class without a docstring must not speak its parent's
    return " ".join(part for part in (field.description, own_words, _default_note(field)) if part)


def _default_note(field: FieldInfo) -> str:
    """A sub-section's default, where that is not simply the defaults of its keys."""
    if field.is_required():
        return "Required."
    if isinstance(field.default, str):
        return f"Default: `{field.default}`."
    return "Default: none." if field.default is None or _is_list(field.annotation) else ""


def _type_name(annotation: Any) -> str:
    origin = get_origin(annotation)
    if origin is Annotated:
        return _type_name(get_args(annotation)[0])
    if origin is list:
        return f"list of {_type_name(get_args(annotation)[0])}"
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in get_args(annotation))
    if origin in {Union, types.UnionType}:
        return " or ".join(_type_name(part) for part in get_args(annotation) if part is not type(None))
    named = {str: "text", int: "integer", float: "number", bool: "true or false", Path: "path"}
    return named.get(annotation, "mapping")


def _unit(path: str) -> str:
    endings = [ending for ending in _UNITS if path.endswith(ending)]
    return _UNITS[max(endings, key=len)] if endings else ""


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    default = field.get_default(call_default_factory=True)
    return "" if default in (None, "") else f"`{_plain(default)}`"


def _plain(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _range(field: FieldInfo) -> str:
    constraints = [*field.metadata, *(part for inner in get_args(field.annotation) for part in get_args(inner)[1:])]
    shown = [
        f"{sign} {getattr(constraint, attribute)}"
        for constraint in constraints
        for kind, attribute, sign in _BOUNDS
        if isinstance(constraint, kind)
    ]
    return ", ".join(shown)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_in(part)) is not None), None)


def _is_list(annotation: Any) -> bool:
    return get_origin(annotation) is list or any(_is_list(part) for part in get_args(annotation))


# --- metrics ----------------------------------------------------------------------------------------------------------


def _group(name: str, metrics: Iterable[Metric]) -> str:
    listed = list(metrics)
    table = _table(("Metric", "Kind", "Labels", "Unit", "Meaning"), [_metric(metric) for metric in listed])
    buckets = "\n".join(
        f"- `{metric.name}`: {', '.join(f'{bound:g}' for bound in metric.buckets)}"
        for metric in listed
        if metric.kind is Kind.HISTOGRAM
    )
    return f"## {name}\n\n{table}" + (f"\nBuckets, upper bounds:\n\n{buckets}\n" if buckets else "")


def _metric(metric: Metric) -> tuple[str, ...]:
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    return (f"`{metric.name}`", metric.kind.value, labels, metric.unit or "", metric.help)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    escaped = ([cell.replace("|", "\\|") for cell in line] for line in lines)
    return "".join(f"| {' | '.join(cells)} |\n" for cells in escaped)


if __name__ == "__main__":
    sys.exit(main())
