"""What can go wrong, each with what happened and what to do.

QuantError
├── RecipeError    a recipe cannot be read, or asks for something that is not there
├── SourceError    the source checkpoint is missing, broken, already quantized, or not finite
├── SchemeError    the scheme is unknown or does not fit the checkpoint
├── MethodError    a method of another environment failed
├── OutputError    the output cannot be written
└── ServedError    a running engine did not answer as expected
"""

from __future__ import annotations

__all__ = ["MethodError", "OutputError", "QuantError", "RecipeError", "SchemeError", "ServedError", "SourceError"]


class QuantError(Exception):
    """Anything this package refuses to do; the message is for a person."""


class RecipeError(QuantError):
    """The recipe is wrong; the message names file, line and key."""


class SourceError(QuantError):
    """The source checkpoint cannot be used."""


class SchemeError(QuantError):
    """The quantization scheme cannot be used, or not with this checkpoint."""


class MethodError(QuantError):
    """A method that runs in an environment of its own ended without a result."""


class OutputError(QuantError):
    """The output directory cannot be written."""


class ServedError(QuantError):
    """A running engine is unreachable or answers something else than asked."""
