"""Output tokens that an engine counted and the gateway did not see."""

from __future__ import annotations

__all__ = ["ForeignTokens"]

_MIN_SLACK_MILLITOKENS = 16_000
_SLACK_RATIO = 0.05
"""Of the gateway's own tokens in the window: the engine's counter is read at another moment than ours."""


class ForeignTokens:
    """For one engine on one device: compares its counter with ours, window by window, in millitokens.

    What counts is the growth of the highest lead that the engine's total ever had over ours: a counter that is read
    late only lowers the lead, so its jitter makes no foreign tokens; what later turns out to be ours is made up for.
    """

    def __init__(self) -> None:
        self._last_total: int | None = None
        self._theirs = 0
        self._ours = 0
        self._lead = 0

    def in_window(self, total: int | None, ours: int) -> int:
        """The foreign millitokens of a window, given the engine's token counter at its end and ours within it."""
        last, self._last_total = self._last_total, total
        if total is None or last is None or total < last:  # nothing to compare, or the engine started again
            self._theirs = self._ours = self._lead = 0
            return 0
        self._theirs += (total - last) * 1000
        self._ours += ours
        growth = self._theirs - self._ours - self._lead
        if growth <= max(_MIN_SLACK_MILLITOKENS, _SLACK_RATIO * ours):
            return 0
        self._lead += growth
        return growth
