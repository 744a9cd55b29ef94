"""What can go wrong between here and a Grafana."""

from __future__ import annotations

__all__ = ["PushError"]


class PushError(Exception):
    """It could not be done; the message is for a person."""
