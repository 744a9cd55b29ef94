"""The constant part of a stream's token events."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Template"]


class Template(NamedTuple):
    """An event that has `before` and `behind`, and no quote in between, is a token event, whatever the text is."""

    before: bytes
    """Up to and with the text's opening quote."""
    behind: bytes
    """From the closing quote to the blank line."""
    before_out: bytes
    """What the client gets in the place of `before`."""
