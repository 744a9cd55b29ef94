"""How many requests are at each replica."""

from __future__ import annotations

__all__ = ["Outstanding"]


class Outstanding(dict[str, int]):
    """Counts by replica; one that has none is missing."""

    def add(self, replica: str) -> None:
        """One more."""
        self[replica] = self.get(replica, 0) + 1

    def remove(self, replica: str) -> None:
        """One less."""
        left = self[replica] - 1
        if left:
            self[replica] = left
        else:
            del self[replica]
