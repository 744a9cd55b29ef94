"""The own quantization schemes: one file each, one line each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from quant.errors import SchemeError, SourceError
from quant.methods.fp8 import Fp8Block, Fp8Dynamic
from quant.methods.method import Method, Options
from quant.methods.w4a16 import W4A16
from quant.methods.w8a8_int8 import W8A8Int8

__all__ = ["METHODS", "Method", "Options", "method_of", "method_on_disk"]

METHODS: Final[Mapping[str, Callable[[Options], Method]]] = {
    "w8a8-int8": W8A8Int8.from_options,
    "w4a16": W4A16.from_options,
    "fp8-dynamic": Fp8Dynamic.from_options,
    "fp8-block": Fp8Block.from_options,
}


def method_of(scheme: str, options: Options) -> Method:
    """The method of that name. Raises `SchemeError` for an unknown one or options that it does not take."""
    if scheme not in METHODS:
        raise SchemeError(f"There is no scheme {scheme!r}. Choose one of: {', '.join(METHODS)}.")
    return METHODS[scheme](options)


def method_on_disk(config: Mapping[str, Any]) -> Method:
    """The method that reads a checkpoint with this `quantization_config`. Raises `SourceError` if there is none."""
    layout = str(config.get("format"))
    groups = config.get("config_groups", {})
    weights = [group.get("weights") or {} for group in groups.values()]
    if len(weights) == 1 and layout in _READERS:
        method = _READERS[layout](weights[0])
        if method is not None:
            return method
    raise SourceError(f"Layout {layout!r} is not one that this package reads. It reads: {', '.join(_READERS)}.")


def _int4(weights: Mapping[str, Any]) -> Method | None:
    return W4A16(symmetric=weights.get("symmetric") is not False) if weights.get("num_bits") == 4 else None


def _int8(weights: Mapping[str, Any]) -> Method | None:
    return W8A8Int8() if weights.get("num_bits") == 8 and weights.get("symmetric") is not False else None


def _fp8(weights: Mapping[str, Any]) -> Method | None:
    return Fp8Block() if weights.get("strategy") == "block" else Fp8Dynamic()


_READERS: Final[Mapping[str, Callable[[Mapping[str, Any]], Method | None]]] = {
    "pack-quantized": _int4,
    "int-quantized": _int8,
    "float-quantized": _fp8,
}
