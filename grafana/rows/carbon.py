"""Grams, money, and budgets."""

from __future__ import annotations

from typing import Final

from grafana.panels import Lines, Panel
from grafana.queries import energy
from grafana.rows.row import Row

__all__ = ["CARBON"]

CARBON: Final = Row(
    title="Carbon, cost and budgets",
    panels=(
        Panel(
            title="Emissions",
            shows="Grams of CO2e an hour, all accounts of each configuration.",
            no_data="no meter, or no carbon intensity is known.",
            unit="suffix: g/h",
            drawing=Lines(stacked=True),
            queries=(energy.co2e_per_hour(),),
            width=6,
        ),
        Panel(
            title="Carbon intensity",
            shows="Of the electricity, and where that comes from; power usage effectiveness is not in it.",
            no_data="no source is configured, or a live one answers nothing of use.",
            unit="suffix: g/kWh",
            drawing=Lines(),
            queries=(energy.intensity(),),
            width=6,
        ),
        Panel(
            title="Cost",
            shows="Money an hour, all accounts of each configuration, by currency.",
            no_data="no price is configured, or no meter reads the devices.",
            unit="short",
            drawing=Lines(stacked=True),
            queries=(energy.cost_per_hour(),),
            width=6,
        ),
        Panel(
            title="Tenants over their budget",
            shows="soft: they are warned; hard: they are refused.",
            no_data="no tenant has a budget.",
            unit="short",
            drawing=Lines(),
            queries=(energy.tenants_over_budget(),),
            width=6,
        ),
    ),
)
