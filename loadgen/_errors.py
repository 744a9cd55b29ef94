"""The one error of the load generator: a sentence for a person."""

from __future__ import annotations

__all__ = ["LoadError"]


class LoadError(Exception):
    """The load cannot be made or measured. `str(error)` says what happened, then what to do."""
