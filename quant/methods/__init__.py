"""The quantization methods: one file each, one line each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from quant.errors import SchemeError, SourceError
from quant.methods.method import Method, Options
from quant.methods.w4a16 import W4A16
from quant.methods.w8a8_int8 import W8A8Int8

__all__ = ["METHODS", "Method", "Options", "method_of", "method_on_disk"]

METHODS: Final[Mapping[str, Callable[[Options], Method]]] = {
    "w8a8-int8": W8A8Int8.from_options,
    "w4a16": W4A16.from_options,
}


def method_of(scheme: str, options: Options) -> Method:
    """The method of that name. Raises `SchemeError` for an unknown one or options that it does not take."""
    if scheme not in METHODS:
        raise SchemeError(f"There is no scheme {scheme!r}. Choose one of: {', '.join(METHODS)}.")
    return METHODS[scheme](options)


def method_on_disk(config: Mapping[str, Any]) -> Method:
    """The method that wrote a checkpoint with this `quantization_config`. Raises `SourceError` for any other."""
    layout = config.get("format")
    groups = config.get("config_groups", {})
    weights = [group.get("weights") or {} for group in groups.values()]
    if len(weights) == 1:
        for make in METHODS.values():
            method = make(Options())
            if method.format == layout:
                return make(Options(group_size=weights[0].get("group_size")))
    raise SourceError(f"Layout {layout!r} is not one that this package reads. It reads: {', '.join(METHODS)}.")
