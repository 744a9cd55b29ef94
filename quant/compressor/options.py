"""What a user may choose for a method of llm-compressor.

Checked here in full, without torch, so that a wrong recipe is refused before minutes are spent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from quant.errors import SchemeError

__all__ = ["CALIBRATION", "CompressorOptions", "kind_of", "read_options"]

GROUP_SIZES: Final = (32, 64, 128)  # the sizes that every engine's kernel takes


@dataclass(frozen=True, slots=True, kw_only=True)
class CompressorOptions:
    """All choices of all methods, each with its default; a method reads those that it takes."""

    scheme: str | None = None
    """None: the first of the method's schemes."""
    group_size: int = 128
    symmetric: bool = True
    strength: float = 0.5
    """SmoothQuant's alpha: 0 leaves the activations as they are, 1 moves their whole range into the weights."""
    calibration: Path | None = None
    """A text file; None: the demo's corpus, the standard library's own text."""
    samples: int = 32
    length: int = 256
    """Tokens a sample."""
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Limits:
    """What a value must be."""

    kind: type
    allowed: tuple[Any, ...] = ()
    least: float | None = None
    most: float | None = None


CALIBRATION: Final = ("calibration", "samples", "length", "seed")
_LIMITS: Final[Mapping[str, _Limits]] = {
    "scheme": _Limits(kind=str),
    "group_size": _Limits(kind=int, allowed=GROUP_SIZES),
    "symmetric": _Limits(kind=bool),
    "strength": _Limits(kind=float, least=0.0, most=1.0),
    "calibration": _Limits(kind=str),
    "samples": _Limits(kind=int, least=1, most=100_000),
    "length": _Limits(kind=int, least=2, most=1_000_000),
    "seed": _Limits(kind=int, least=0, most=2**63 - 1),
}


def read_options(
    given: Mapping[str, Any], *, takes: Mapping[str, type], schemes: tuple[str, ...], defaults: Mapping[str, Any]
) -> CompressorOptions:
    """The options with the method's own defaults filled in. Raises `SchemeError`, which names the option."""
    for name, value in given.items():
        if name not in takes:
            raise SchemeError(f"There is no option {name!r} here. It takes: {', '.join(takes)}.")
        _check(name, value)
    scheme = given.get("scheme", schemes[0])
    if scheme not in schemes:
        raise SchemeError(f"There is no scheme {scheme!r} here. Choose one of: {', '.join(schemes)}.")
    chosen = {**defaults, **given, "scheme": scheme}
    if chosen.get("calibration") is not None:
        chosen["calibration"] = Path(chosen["calibration"])
    return CompressorOptions(**chosen)


def kind_of(name: str) -> type:
    """The Python type of an option's value in a recipe."""
    return _LIMITS[name].kind


def _check(name: str, value: Any) -> None:
    limits = _LIMITS[name]
    # JSON and YAML write 1 for 1.0; True is an int to Python and never meant as one.
    number = isinstance(value, int) and not isinstance(value, bool)
    fits = number if limits.kind is int else isinstance(value, limits.kind) or (limits.kind is float and number)
    if not fits:
        raise SchemeError(f"Option {name} is {value!r}. Give {_wanted(limits)}.")
    # The other way round: NaN is not at least anything.
    inside = (limits.least is None or value >= limits.least) and (limits.most is None or value <= limits.most)
    if not inside or (limits.allowed and value not in limits.allowed):
        raise SchemeError(f"Option {name} is {value!r}. Give {_wanted(limits)}.")


def _wanted(limits: _Limits) -> str:
    if limits.allowed:
        return "one of: " + ", ".join(str(value) for value in limits.allowed)
    words = {str: "a text", int: "a whole number", bool: "true or false", float: "a number"}[limits.kind]
    return words if limits.least is None else f"{words} from {limits.least:g} to {limits.most:g}"
