"""How long to wait before an engine's next start, and when to give up."""

from __future__ import annotations

from typing import Final

from server.config import RestartSettings
from server.units import Seconds

__all__ = ["HEALTHY_AFTER_S", "Backoff"]

HEALTHY_AFTER_S: Final = Seconds(60.0)
"""An engine that served this long was healthy: what it does next is a first failure again."""


class Backoff:
    """Counts failures in a row: 1·b, 2·b, 4·b … up to the settings' bound, then gives up."""

    def __init__(self, settings: RestartSettings) -> None:
        self._settings = settings
        self.failures = 0

    def failed(self, *, served: Seconds | None) -> Seconds | None:
        """The wait before the next start; None: give up. `served` is how long it was ready; None: never."""
        if served is not None and served >= HEALTHY_AFTER_S:
            self.failures = 0
        self.failures += 1
        if self.failures >= self._settings.give_up_after:
            return None
        # 2**30 is beyond every allowed bound: no overflow, however long this goes on.
        wait = self._settings.backoff_s * 2 ** min(self.failures - 1, 30)
        return Seconds(min(wait, self._settings.max_backoff_s))

    def reset(self) -> None:
        """Somebody asked for a fresh start."""
        self.failures = 0
