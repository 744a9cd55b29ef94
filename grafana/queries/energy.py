"""PromQL of joules, grams and money beyond the comparison of configurations."""

from __future__ import annotations

from grafana.queries.query import BY_CONFIGURATION, ENGINE, RATE_WINDOW, TRAFFIC, Query, by_label, legend, sum_by

__all__ = [
    "attribution_confidence",
    "attribution_residual",
    "co2e_per_hour",
    "cost_per_hour",
    "intensity",
    "joules_by_engine_and_adapter",
    "meters_up",
    "output_token_price",
    "prompt_token_price",
    "request_joules",
    "saved_by_cancellation",
    "tenant_watts",
    "tenants_over_budget",
    "total_co2e_per_hour",
    "total_cost_per_hour",
    "watts_by_configuration",
]

_HOUR = 3600


def watts_by_configuration() -> Query:
    """Active and idle power of each configuration."""
    expr = f'rate(wattgate_energy_joules_total{{{ENGINE},variant!="none"}}[{RATE_WINDOW}])'
    by = (*BY_CONFIGURATION, "account")
    return Query(expr=sum_by(by, expr), legend=legend(by))


def tenant_watts() -> Query:
    """Active power, by tenant."""
    return by_label(f"sum by (tenant) (rate(wattgate_tenant_energy_joules_total[{RATE_WINDOW}]))", "tenant")


def joules_by_engine_and_adapter() -> Query:
    """Joules of the active account over output tokens, over the range that is shown."""
    energy = f'sum by (engine, adapter) (rate(wattgate_energy_joules_total{{{TRAFFIC},account="active"}}[$__range]))'
    tokens = f'sum by (engine, adapter) (rate(wattgate_tokens_total{{{TRAFFIC},kind="output"}}[$__range]))'
    return by_label(f"{energy} / ({tokens} > 0)", "engine", "adapter")


def request_joules(q: float) -> Query:
    """The q-quantile of the joules of completed requests."""
    rate = f"rate(wattgate_request_energy_joules_bucket{{{TRAFFIC}}}[{RATE_WINDOW}])"
    return Query(
        expr=f"histogram_quantile({q}, {sum_by(('le', *BY_CONFIGURATION), rate)})",
        legend=f"{legend(BY_CONFIGURATION)} p{q * 100:g}",
    )


def output_token_price() -> Query:
    """Joules of an output token lately, by engine."""
    return by_label(f"wattgate_output_token_price_joules{{{ENGINE}}}", "engine")


def prompt_token_price() -> Query:
    """Joules of a computed prompt token lately, by engine."""
    return by_label(f"wattgate_prompt_token_price_joules{{{ENGINE}}}", "engine")


def saved_by_cancellation() -> Query:
    """Joules that cancelled requests did not use, by engine."""
    return by_label(
        f"sum by (engine) (increase(wattgate_energy_saved_by_cancellation_joules_total{{{ENGINE}}}[$__range]))",
        "engine",
    )


def attribution_confidence() -> Query:
    """How far a single request's joules can be trusted, by method."""
    return by_label("wattgate_attribution_confidence_ratio", "method")


def attribution_residual() -> Query:
    """By how much each meter was above what the method expected, in the last window."""
    return by_label("wattgate_attribution_residual_joules", "device")


def meters_up() -> Query:
    """1 where the last reading succeeded."""
    return by_label("wattgate_meter_up", "meter")


def co2e_per_hour() -> Query:
    """Grams of each configuration, all accounts."""
    expr = f'rate(wattgate_co2e_grams_total{{{ENGINE},variant!="none"}}[{RATE_WINDOW}])'
    return Query(expr=f"{_HOUR} * {sum_by(BY_CONFIGURATION, expr)}", legend=legend(BY_CONFIGURATION))


def total_co2e_per_hour() -> Query:
    """Grams of everything."""
    return Query(expr=f"{_HOUR} * sum(rate(wattgate_co2e_grams_total[{RATE_WINDOW}]))", legend="all")


def intensity() -> Query:
    """Grams a kWh, and where that comes from."""
    joined = "on (job, instance) group_left (source, kind) wattgate_carbon_info"
    return by_label(f"wattgate_carbon_intensity_grams_per_kwh * {joined}", "source", "kind")


def cost_per_hour() -> Query:
    """Money of each configuration, by currency."""
    by = (*BY_CONFIGURATION, "currency")
    expr = f'rate(wattgate_cost_total{{{ENGINE},variant!="none"}}[{RATE_WINDOW}])'
    return Query(expr=f"{_HOUR} * {sum_by(by, expr)}", legend=legend(by))


def total_cost_per_hour() -> Query:
    """Money of everything, by currency."""
    return by_label(f"{_HOUR} * sum by (currency) (rate(wattgate_cost_total[{RATE_WINDOW}]))", "currency")


def tenants_over_budget() -> Query:
    """How many are over a bound now."""
    return by_label("sum by (bound) (wattgate_budgets_over)", "bound")
