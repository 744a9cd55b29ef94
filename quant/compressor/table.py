"""The methods of llm-compressor: one line each. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from quant.compressor.options import CALIBRATION, CompressorOptions, kind_of, read_options
from quant.errors import SchemeError

__all__ = ["COMPRESSOR_METHODS", "CompressorMethod", "method_options"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CompressorMethod:
    """One method, as a recipe names it."""

    summary: str
    schemes: tuple[str, ...]
    """What it can make; the first is the default."""
    takes: tuple[str, ...]
    """The options it knows besides `scheme`."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Where they differ from those of `CompressorOptions`."""

    @property
    def options(self) -> Mapping[str, type]:
        """The keys that a recipe may give, with the type of their values."""
        return {name: kind_of(name) for name in ("scheme", *self.takes)}

    @property
    def calibrated(self) -> bool:
        """Whether it looks at text."""
        return "calibration" in self.takes


COMPRESSOR_METHODS: Final[Mapping[str, CompressorMethod]] = {
    "gptq": CompressorMethod(
        summary="GPTQ: rounds column by column, each column making up for the errors of those before",
        schemes=("w4a16", "w8a8-int8"),
        takes=("group_size", "symmetric", *CALIBRATION),
        defaults={"samples": 128},  # it solves for as many unknowns as a layer has inputs
    ),
    "awq": CompressorMethod(
        summary="AWQ: scales the input channels that carry large activations before rounding",
        schemes=("w4a16",),
        takes=("group_size", "symmetric", *CALIBRATION),
        defaults={"symmetric": False},
    ),
    "smoothquant": CompressorMethod(
        summary="SmoothQuant: moves outliers of activations into the weights, then rounds both",
        schemes=("w8a8-int8",),
        takes=("strength", *CALIBRATION),
    ),
    "fp8-static": CompressorMethod(
        summary="FP8 weights and activations, one scale a tensor each, activation scales from text",
        schemes=("fp8-static",),
        takes=CALIBRATION,
    ),
    "kv-cache": CompressorMethod(
        summary="scales for an FP8 key-value cache; weights stay, or become FP8 with dynamic activations",
        schemes=("weights-kept", "fp8-dynamic"),
        takes=CALIBRATION,
    ),
    "nvfp4": CompressorMethod(
        summary="NVFP4 weights and activations: 4-bit floats in groups of 16, FP8 scales (Blackwell)",
        schemes=("nvfp4",),
        takes=CALIBRATION,
    ),
    "rtn-reference": CompressorMethod(
        summary="llm-compressor's own round-to-nearest, the reference for the project's",
        schemes=("w4a16", "w8a8-int8", "fp8-dynamic", "fp8-block"),
        takes=("group_size", "symmetric"),
    ),
}


def method_options(name: str, given: Mapping[str, Any]) -> CompressorOptions:
    """What a recipe's keys mean. Raises `SchemeError` for an unknown method, option, scheme, or a wrong value."""
    if name not in COMPRESSOR_METHODS:
        raise SchemeError(f"There is no method {name!r}. Choose one of: {', '.join(COMPRESSOR_METHODS)}.")
    method = COMPRESSOR_METHODS[name]
    try:
        return read_options(given, takes=method.options, schemes=method.schemes, defaults=method.defaults)
    except SchemeError as exc:
        raise SchemeError(f"Method {name}: {exc}") from exc
