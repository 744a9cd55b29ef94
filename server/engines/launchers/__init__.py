"""Launchers: the ways in which an engine comes to run."""

from collections.abc import Mapping
from typing import Final

from server.engines.launchers.external import ExternalLauncher
from server.engines.launchers.launcher import Exit, Launcher, Order, Running, TransientStartError
from server.engines.launchers.local import LocalLauncher

__all__ = ["LAUNCHERS", "Exit", "Launcher", "Order", "Running", "TransientStartError"]

LAUNCHERS: Final[Mapping[str, Launcher]] = {
    "external": ExternalLauncher(),
    "local": LocalLauncher(),
}
"""To add a launcher: one file beside these, one line here."""
