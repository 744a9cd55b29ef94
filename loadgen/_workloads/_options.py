"""`--workload-options`: names with numbers, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

from loadgen._errors import LoadError
from loadgen._workloads._workload import CHAT, COMPLETIONS, Endpoint

__all__ = ["Options"]

_ENDPOINTS: Final[Mapping[str, Endpoint]] = {"chat": CHAT, "completions": COMPLETIONS}
_COMMON: Final = frozenset({"endpoint", "context"})
_MAY_BE_ZERO: Final = frozenset({"zipf"})
"""Then all are equally popular."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the text says, with the defaults of what it leaves out. Numbers are above 0."""

    values: Mapping[str, float]
    endpoint: Endpoint
    context: int | None
    """Lengths are made for a context of that many tokens, even if the models have a longer one."""

    @classmethod
    def parse(cls, text: str, defaults: Mapping[str, float] = {}) -> Self:
        """`groups=8,endpoint=completions`. Raises `LoadError` for a name that this workload does not have."""
        said = dict(_pair(part) for part in text.split(",") if part.strip())
        known = sorted({*defaults, *_COMMON})
        for name in said:
            if name not in known:
                raise LoadError(f"--workload-options names {name!r}; this workload has {', '.join(known)}.")
        numbers = {name: _number(name, value) for name, value in said.items() if name != "endpoint"}
        context = numbers.pop("context", None)
        return cls(
            values={**defaults, **numbers},
            endpoint=_endpoint(said.get("endpoint", "chat")),
            context=None if context is None else _whole("context", context),
        )

    def whole(self, name: str) -> int:
        """A number that must be an integer."""
        return _whole(name, self.values[name])

    def number(self, name: str) -> float:
        return self.values[name]


def _pair(part: str) -> tuple[str, str]:
    name, equals, value = part.partition("=")
    if not equals:
        raise LoadError(f"--workload-options: {part.strip()!r} is not NAME=VALUE.")
    return name.strip(), value.strip()


def _number(name: str, value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if not 0 < number < float("inf") and not (name in _MAY_BE_ZERO and number == 0):
        raise LoadError(f"--workload-options: {name}={value!r} is not a number above 0.")
    return number


def _whole(name: str, number: float) -> int:
    if number != int(number):
        raise LoadError(f"--workload-options: {name}={number:g} must be a whole number.")
    return int(number)


def _endpoint(name: str) -> Endpoint:
    try:
        return _ENDPOINTS[name]
    except KeyError:
        raise LoadError(f"--workload-options: endpoint={name!r} is none of {', '.join(_ENDPOINTS)}.") from None
