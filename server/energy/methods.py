"""Finds the method of attribution that the configuration names, and what it offers beyond the contract."""

from __future__ import annotations

from typing import Final, Protocol, runtime_checkable

from server.energy.attribution import ATTRIBUTIONS, Attribution
from server.energy.attribution.automatic import Automatic
from server.errors import ConfigError

__all__ = ["AUTOMATIC", "attribution_of", "marginal_of"]

AUTOMATIC: Final = Automatic.name


@runtime_checkable
class _TellsMargins(Protocol):
    def marginal_output_token(self, engine: str) -> float | None:
        """µJ that one more stream adds for each of its tokens; None: not known."""


def attribution_of(name: str) -> Attribution:
    """A fresh one. Raises `ConfigError` for a name that is none."""
    if name not in ATTRIBUTIONS:
        raise ConfigError(f"energy.method: there is no method {name!r}; there are {', '.join(sorted(ATTRIBUTIONS))}.")
    return ATTRIBUTIONS[name]()


def marginal_of(attribution: Attribution, engine: str) -> float | None:
    """µJ that one more stream adds for each of its tokens; None: the method cannot tell."""
    return attribution.marginal_output_token(engine) if isinstance(attribution, _TellsMargins) else None
