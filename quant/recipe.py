"""A recipe: one source checkpoint, and the variants to make of it.

    source: ../models/demo            a directory, from the recipe's own; or a model id of the hub
    output: ../variants               directory of the variants' directories; default: variants
    variants:
      demo-int4: {method: rtn, scheme: w4a16, group_size: 64}
      demo-fp16: {method: cast, dtype: fp16}

Nothing here needs torch: a wrong recipe is refused before anything is loaded.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from quant.catalogue import CATALOGUE, MethodEntry
from quant.compressor.table import method_options
from quant.errors import SchemeError
from quant.recipe_file import Entry, read_entries

__all__ = ["Recipe", "VariantPlan", "read_recipe"]

_KEYS: Final = ("source", "output", "variants")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_WORDS: Final[Mapping[type, str]] = {
    str: "a text",
    int: "a whole number",
    bool: "true or false",
    float: "a number",
    list: "a list",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantPlan:
    """One variant as the recipe wants it."""

    name: str
    method: str
    scheme: str | None
    options: Mapping[str, Any]
    """Besides method and scheme, as given; a `calibration` file as an absolute path."""
    place: Entry
    """Where in the recipe, for errors that show up later."""

    @property
    def entry(self) -> MethodEntry:
        return CATALOGUE[self.method]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A checked recipe."""

    path: Path
    source: str
    """As it is written: a directory relative to the recipe's, or a model id."""
    output: Path
    variants: tuple[VariantPlan, ...]


def read_recipe(path: Path) -> Recipe:
    """Raises `RecipeError`, which names line and key."""
    top = read_entries(path)
    keys = top.mapping()
    for name, entry in keys.items():
        if name not in _KEYS:
            raise entry.wrong(f"is no key of a recipe. The keys are: {', '.join(_KEYS)}.")
    for name in ("source", "variants"):
        if name not in keys:
            raise top.wrong(f"has no `{name}`.")
    variants = keys["variants"].mapping()
    if not variants:
        raise keys["variants"].wrong("names no variant.")
    output = _text(keys["output"]) if "output" in keys else "variants"
    return Recipe(
        path=path,
        source=_text(keys["source"]),
        output=(path.parent / Path(output).expanduser()).resolve(),
        variants=tuple(_variant(name, entry) for name, entry in variants.items()),
    )


def _variant(name: str, entry: Entry) -> VariantPlan:
    if not _NAME.fullmatch(name):
        raise entry.wrong("is no name for a directory. Use letters, digits, dots, dashes and underscores.")
    keys = entry.mapping()
    if "method" not in keys:
        raise entry.wrong(f"has no `method`. Choose one of: {', '.join(CATALOGUE)}.")
    method = _text(keys["method"])
    if method not in CATALOGUE:
        raise keys["method"].wrong(f"is {method!r}. Choose one of: {', '.join(CATALOGUE)}.")
    known = CATALOGUE[method]
    scheme = _scheme(known, keys.get("scheme"), entry)
    options = {key: _option(known, key, given) for key, given in keys.items() if key not in {"method", "scheme"}}
    if method == "cast" and "dtype" not in options:
        raise entry.wrong("has no `dtype`. Choose one of: bf16, fp16, fp32.")
    if known.tier != "own":
        _check_compressor(method, scheme, options, entry)
    return VariantPlan(name=name, method=method, scheme=scheme, options=options, place=entry)


def _scheme(known: MethodEntry, given: Entry | None, variant: Entry) -> str | None:
    choices = ", ".join(known.schemes)
    if given is None:
        if known.schemes and not known.scheme_is_optional:
            raise variant.wrong(f"has no `scheme`. Choose one of: {choices}.")
        return known.schemes[0] if known.schemes else None
    scheme = _text(given)
    if scheme not in known.schemes:
        raise given.wrong(f"is {scheme!r}. {f'Choose one of: {choices}.' if choices else 'Leave it out here.'}")
    return scheme


def _option(known: MethodEntry, key: str, given: Entry) -> Any:
    if key not in known.options:
        raise given.wrong(f"is nothing that this method takes. It takes: {', '.join(('scheme', *known.options))}.")
    kind, value = known.options[key], given.value
    is_number = isinstance(value, int) and not isinstance(value, bool)
    if not (is_number if kind is int else isinstance(value, kind) or (kind is float and is_number)):
        raise given.wrong(f"is {_shown(value)}. Give {_WORDS[kind]}.")
    if kind is list and not all(isinstance(item, str) for item in value):
        raise given.wrong("must be a list of texts.")
    if key != "calibration":
        return value
    file = (given.path.parent / Path(value).expanduser()).resolve()
    if not file.is_file():
        raise given.wrong(f"is {value!r}, and there is no such file beside the recipe.")
    return str(file)


def _check_compressor(method: str, scheme: str | None, options: Mapping[str, Any], entry: Entry) -> None:
    try:
        method_options(method, {"scheme": scheme, **options})
    except SchemeError as exc:
        raise entry.wrong(f"is not possible: {exc}") from exc


def _text(entry: Entry) -> str:
    if not isinstance(entry.value, str) or not entry.value:
        raise entry.wrong(f"is {_shown(entry.value)}. Give a text.")
    return entry.value


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "a mapping"
    return "empty" if value is None else repr(value)
