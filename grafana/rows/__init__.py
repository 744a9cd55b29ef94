"""Rows: a file for each or for two that belong together, all in this table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from grafana.rows.adapters import ADAPTERS
from grafana.rows.answers import ANSWERS, TRADE_OFFS
from grafana.rows.carbon import CARBON
from grafana.rows.configurations import CONFIGURATIONS
from grafana.rows.efficiency import EFFICIENCY
from grafana.rows.energy import ENERGY
from grafana.rows.engine import ENGINE
from grafana.rows.fleet import FLEET
from grafana.rows.gateway import GATEWAY, LOAD
from grafana.rows.latency import LATENCY
from grafana.rows.now import NOW
from grafana.rows.power import ATTRIBUTION, POWER
from grafana.rows.row import Row
from grafana.rows.traffic import TRAFFIC

__all__ = ["ROWS", "Row"]

ROWS: Final[Mapping[str, Row]] = {
    "adapters": ADAPTERS,
    "answers": ANSWERS,
    "attribution": ATTRIBUTION,
    "carbon": CARBON,
    "configurations": CONFIGURATIONS,
    "efficiency": EFFICIENCY,
    "energy": ENERGY,
    "engine": ENGINE,
    "fleet": FLEET,
    "gateway": GATEWAY,
    "latency": LATENCY,
    "load": LOAD,
    "now": NOW,
    "power": POWER,
    "trade-offs": TRADE_OFFS,
    "traffic": TRAFFIC,
}
