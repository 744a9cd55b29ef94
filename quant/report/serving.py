"""Which devices can serve a checkpoint, by the rules of server/models."""

from __future__ import annotations

from typing import Final

from server.errors import IncompatibleError
from server.models.checkpoint import Checkpoint
from server.models.device import DEVICES
from server.models.rules import check_checkpoint

__all__ = ["SHOWN", "refusals"]

SHOWN: Final = ("cpu", "cpu-avx2", "sm75", "sm80", "sm89", "sm90", "sm100")
"""Of the devices that `can-serve` knows, those between which the answers change."""


def refusals(checkpoint: Checkpoint) -> dict[str, str | None]:
    """By device: why vLLM cannot serve the checkpoint there; None: it can, as far as the rules know."""
    found: dict[str, str | None] = {}
    for name in SHOWN:
        try:
            check_checkpoint(checkpoint, DEVICES[name])
        except IncompatibleError as exc:
            found[name] = str(exc)
        else:
            found[name] = None
    return found
