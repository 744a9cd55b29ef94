"""Rows: one file each, all in this table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from grafana.rows.configurations import CONFIGURATIONS
from grafana.rows.energy import ENERGY
from grafana.rows.fleet import FLEET
from grafana.rows.latency import LATENCY
from grafana.rows.row import Row
from grafana.rows.traffic import TRAFFIC

__all__ = ["ROWS", "Row"]

ROWS: Final[Mapping[str, Row]] = {
    "configurations": CONFIGURATIONS,
    "energy": ENERGY,
    "fleet": FLEET,
    "latency": LATENCY,
    "traffic": TRAFFIC,
}
