"""What whoever started the gateway sees: lines on the terminal, exit statuses.

Standard library only: the launcher imports it.
"""

from __future__ import annotations

import sys
from typing import Final

__all__ = ["EXIT_CANNOT_LISTEN", "EXIT_NOTHING_TO_SERVE", "EXIT_USAGE", "say"]

EXIT_USAGE: Final = 2
"""The user must change something; argparse exits with it, too."""

EXIT_CANNOT_LISTEN: Final = 3
"""Another process has the port."""

EXIT_NOTHING_TO_SERVE: Final = 70
"""Of the control plane: every engine has been given up, do not start it again."""


def say(message: str) -> None:
    """One message to the terminal, or to whatever keeps the log."""
    sys.stderr.write(f"wattgate: {message}\n")
    sys.stderr.flush()
