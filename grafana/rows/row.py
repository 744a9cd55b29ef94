"""A row: panels that answer one question together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from grafana.panels import Panel

__all__ = ["Row"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Panels side by side in reading order; the widths of each line add up to the grid's 24 columns."""

    title: str
    panels: Sequence[Panel]
