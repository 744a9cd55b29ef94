"""What can go wrong, each with what happened and what to do.

QuantError
├── SourceError    the source checkpoint is missing, broken, already quantized, or not finite
├── SchemeError    the scheme is unknown or does not fit the checkpoint
├── OutputError    the output cannot be written
└── ServedError    a running engine did not answer as expected
"""

from __future__ import annotations

__all__ = ["OutputError", "QuantError", "SchemeError", "ServedError", "SourceError"]


class QuantError(Exception):
    """Anything this package refuses to do; the message is for a person."""


class SourceError(QuantError):
    """The source checkpoint cannot be used."""


class SchemeError(QuantError):
    """The quantization scheme cannot be used, or not with this checkpoint."""


class OutputError(QuantError):
    """The output directory cannot be written."""


class ServedError(QuantError):
    """A running engine is unreachable or answers something else than asked."""
