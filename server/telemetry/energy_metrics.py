"""The catalogue's part on energy, carbon, cost, and the ledger."""

from __future__ import annotations

from typing import Final

from server.telemetry.metric import CONFIGURATION, ENGINE, Metric, counter, gauge, info

__all__ = ["ENERGY_METRICS"]

# fmt: off
ENERGY_METRICS: Final[tuple[Metric, ...]] = (
    # energy
    counter("energy", "wattgate_device_energy_joules_total", ("device", "scope"),
        "Energy of a device up to its last accounted window; equals the sum of its accounts. Scope says what "
        "the meter covers; `estimated`: no hardware counter."),
    counter("energy", "wattgate_energy_joules_total", ("device", "scope", *CONFIGURATION, "account", "phase"),
        "Energy by account. active: requests, by phase; idle: engine up, nobody running; unattributed: traffic past "
        "the gateway, or nobody known; other: the operating system, the gateway, load generators."),
    counter("energy", "wattgate_tenant_energy_joules_total", ("tenant", "scope"),
        "The active account, by tenant."),
    counter("energy", "wattgate_tenant_idle_energy_joules_total", ("tenant", "scope"),
        "The part of the idle account that energy.idle lays on tenants; it stays in the idle account as well."),
    counter("energy", "wattgate_energy_saved_by_cancellation_joules_total", ENGINE,
        "Tokens that cancelled requests allowed and that were not written, at the engine's joule price of an output "
        "token then: at most what leaving saved."),
    info("energy", "wattgate_attribution_info", ("method",),
        "How joules are shared out to requests now; docs/energy.md tells of the methods."),
    gauge("energy", "wattgate_attribution_confidence_ratio", ("method",),
        "How far a single request's joules can be trusted, 0 to 1; sums over an engine can be trusted more."),
    gauge("energy", "wattgate_attribution_residual_joules", ("device",),
        "By how much the meter was above (or below) what the method expected, in the device's last accounted window; "
        "scaling has put it right."),
    gauge("energy", "wattgate_output_token_price_joules", ENGINE,
        "Joules of an output token at this engine lately: an average cost, at the batch sizes of the last minute."),
    gauge("energy", "wattgate_prompt_token_price_joules", ENGINE,
        "Joules of a computed prompt token at this engine lately; those from the prefix cache cost next to nothing."),
    gauge("energy", "wattgate_meter_up", ("meter",),
        "1 if the meter's last reading succeeded, else 0."),
    gauge("energy", "wattgate_meter_age_seconds", ("meter",),
        "Time since the meter's last good reading."),
    # carbon
    counter("carbon", "wattgate_co2e_grams_total", (*CONFIGURATION, "account"),
        "Emissions of the energy accounts, by the intensity at the moment of use."),
    counter("carbon", "wattgate_tenant_co2e_grams_total", ("tenant",),
        "Emissions of the tenant's requests."),
    counter("carbon", "wattgate_embodied_co2e_grams_total", ("device", *ENGINE),
        "Embodied emissions of devices over the time that they were up, in equal parts to the engines on them; not in "
        "wattgate_co2e_grams_total."),
    counter("carbon", "wattgate_carbon_unknown_energy_joules_total", (),
        "Energy used while no carbon intensity was known: it is in no count of grams."),
    counter("carbon", "wattgate_carbon_refusals_total", ("source", "reason"),
        "Answers of live sources that were not taken. unreachable: none came; nonsense: no number, or an impossible "
        "one; stale: too old."),
    gauge("carbon", "wattgate_carbon_intensity_grams_per_kwh", (),
        "Carbon intensity of the electricity now, power usage effectiveness not included."),
    gauge("carbon", "wattgate_carbon_intensity_age_seconds", (),
        "Age of a live source's value: since the time that it states, else since it was read."),
    info("carbon", "wattgate_carbon_info", ("source", "kind"),
        "Where the carbon intensity comes from; kind: average or marginal."),
    counter("carbon", "wattgate_cost_total", (*CONFIGURATION, "account", "currency"),
        "Cost of the energy accounts, and, as account `device`, of devices by the hour where that is configured."),
    counter("carbon", "wattgate_tenant_cost_total", ("tenant", "currency"),
        "Cost of the tenant's requests."),
    gauge("carbon", "wattgate_budgets_over", ("bound",),
        "Tenants over a bound of their budget now: soft or hard."),
    # ledger
    gauge("ledger", "wattgate_ledger_up", (),
        "1 if the ledger's last write succeeded, else 0."),
    counter("ledger", "wattgate_ledger_rows_total", (),
        "Request records written to the ledger."),
    gauge("ledger", "wattgate_ledger_waiting", (),
        "Request records that wait to be written to the ledger."),
    counter("ledger", "wattgate_ledger_lost_total", (),
        "Request records that never came into the ledger: it could not be written for too long."),
    counter("ledger", "wattgate_ledger_energies_lost_total", (),
        "Requests whose joules never came to their record in the ledger: it could not be written for too long."),
)
# fmt: on
