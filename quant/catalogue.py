"""Every method that a recipe may name, of both tiers. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from quant.compressor.table import COMPRESSOR_METHODS

__all__ = ["CATALOGUE", "COMMON_OPTIONS", "MethodEntry"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodEntry:
    """One method: where it runs and what a recipe may say of it."""

    tier: str
    """`own`: in the engine environment, tensor by tensor. `llm-compressor`: in the quant environment."""
    summary: str
    schemes: tuple[str, ...]
    """Of which a recipe names one; empty: there is nothing to name."""
    options: Mapping[str, type]
    """Recipe keys besides `method`, `scheme` and the common ones, and the type of their values."""
    scheme_is_optional: bool = False


COMMON_OPTIONS: Final[Mapping[str, type]] = {"ignore": list}
"""For every own method that quantizes."""

_OWN: Final[Mapping[str, MethodEntry]] = {
    "cast": MethodEntry(
        tier="own", summary="another floating-point type: bf16, fp16, fp32", schemes=(), options={"dtype": str}
    ),
    "rtn": MethodEntry(
        tier="own",
        summary="round to nearest",
        schemes=("w8a8-int8", "w4a16", "fp8-dynamic", "fp8-block"),
        options={"group_size": int, "symmetric": bool, "search": bool, "precise": bool, **COMMON_OPTIONS},
    ),
}

_COMPRESSOR: Final[Mapping[str, MethodEntry]] = {
    name: MethodEntry(
        tier="llm-compressor",
        summary=method.summary,
        schemes=method.schemes,
        options={key: kind for key, kind in method.options.items() if key != "scheme"},
        scheme_is_optional=True,
    )
    for name, method in COMPRESSOR_METHODS.items()
}

CATALOGUE: Final[Mapping[str, MethodEntry]] = {**_OWN, **_COMPRESSOR}
