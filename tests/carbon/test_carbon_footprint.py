"""Grams and money: the arithmetic, and what is counted for whom."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.accounts import Account, Phase, Posting, Rates
from server.carbon import CarbonIntensity, Footprint, Known, open_sources, rates_of
from server.carbon.rates import embodied_grams_per_second, price_per_second
from server.config import TelemetrySettings
from server.config.carbon import CarbonSettings, CostSettings, DevicePriceSettings, EmbodiedSettings
from server.telemetry import CATALOGUE, Exposition, LabelCaps, Sources, Traffic
from server.units import Microjoules, Seconds
from tests.fakes.clock import FakeClock

KWH = Microjoules(3_600_000_000_000)


def posting(**changes: Any) -> Posting:
    known = {
        "device": "gpu:0",
        "scope": "gpu",
        "engine": "a",
        "model": "m",
        "variant": "bf16",
        "precision": "bf16",
        "adapter": "none",
        "tenant": "acme",
        "account": Account.ACTIVE,
        "phase": Phase.DECODE,
    }
    return Posting(**{**known, **changes})


NOBODY = {"engine": "none", "model": "none", "variant": "none", "precision": "none", "tenant": "none"}
IDLE = posting(account=Account.IDLE, phase=Phase.NONE, tenant="none")


def at_grams(grams_per_kwh: float | None, *, price: float | None = None) -> Rates:
    known = None if grams_per_kwh is None else Known(grams_per_kwh, "configured", "average", None)
    return rates_of(known, CarbonSettings(), CostSettings(price_per_kwh=price))


def footprint(max_tenants: int = 100, *, clock: FakeClock | None = None, **sections: Any) -> Footprint:
    caps = LabelCaps(TelemetrySettings(max_tenants=max_tenants, max_adapters=max_tenants), clock or FakeClock())
    return Footprint(
        caps,
        carbon=CarbonSettings.model_validate(sections.get("carbon", {})),
        cost=CostSettings.model_validate(sections.get("cost", {})),
    )


def shown(one: Footprint, name: str) -> dict[tuple[str, ...], float]:
    return {labels: value for found, labels, value in one.samples() if found == name and value is not None}


# --- arithmetic -------------------------------------------------------------------------------------------------------


def test_a_kilowatt_hour_at_400_grams_and_a_pue_of_1_5_is_600_grams_and_its_price() -> None:
    known = Known(400.0, "configured", "average", None)
    rates = rates_of(known, CarbonSettings(pue=1.5), CostSettings(price_per_kwh=0.30, currency="USD"))
    assert rates.grams(KWH) == pytest.approx(600)
    assert rates.cost(KWH) == pytest.approx(0.30)  # the price is of what the device uses
    assert (rates.source, rates.kind, rates.currency) == ("configured", "average", "USD")


def test_unknown_stays_unknown() -> None:
    rates = rates_of(None, CarbonSettings(), CostSettings())
    assert (rates.grams(KWH), rates.cost(KWH)) == (None, None)
    assert (rates.source, rates.kind) == ("none", "none")


def test_embodied_emissions_are_those_of_the_example_of_the_sci_specification() -> None:
    # "1000 kg … four years … reserved for one hour": 1000 · 1 / (4 · 365 · 24) kg, "around 28 g".
    server = EmbodiedSettings(device="*", embodied_kg=1000, lifetime_years=4)
    assert embodied_grams_per_second(server) * 3600 == pytest.approx(28.54, abs=0.005)
    eighth = EmbodiedSettings(device="*", embodied_kg=1000, lifetime_years=4, resource_share=0.125)
    assert embodied_grams_per_second(eighth) * 3600 == pytest.approx(28.54 / 8, abs=0.005)


def test_price_by_the_hour() -> None:
    assert price_per_second(DevicePriceSettings(device="*", price_per_hour=3.6)) == pytest.approx(0.001)


# --- what is counted --------------------------------------------------------------------------------------------------


def test_grams_and_cost_stand_by_configuration_and_account_and_requests_by_tenant() -> None:
    one = footprint()
    one.post({posting(): KWH, IDLE: Microjoules(KWH // 2)}, at_grams(400, price=0.2), Seconds(0))
    engine = ("a", "m", "bf16", "bf16", "none")
    assert shown(one, "wattgate_co2e_grams_total") == {
        (*engine, "active"): pytest.approx(400),
        (*engine, "idle"): pytest.approx(200),
    }
    assert shown(one, "wattgate_tenant_co2e_grams_total") == {("acme",): pytest.approx(400)}
    assert shown(one, "wattgate_cost_total") == {
        (*engine, "active", "EUR"): pytest.approx(0.2),
        (*engine, "idle", "EUR"): pytest.approx(0.1),
    }
    assert shown(one, "wattgate_tenant_cost_total") == {("acme", "EUR"): pytest.approx(0.2)}
    assert shown(one, "wattgate_carbon_unknown_energy_joules_total") == {(): 0}


def test_while_the_intensity_is_unknown_grams_are_absent_or_stand_still_and_the_joules_are_counted() -> None:
    one = footprint()
    one.post({posting(): KWH}, at_grams(None, price=0.2), Seconds(0))
    assert shown(one, "wattgate_co2e_grams_total") == {}
    assert shown(one, "wattgate_tenant_co2e_grams_total") == {}
    assert shown(one, "wattgate_cost_total")
    assert shown(one, "wattgate_carbon_unknown_energy_joules_total") == {(): 3.6e6}
    one.post({posting(): KWH}, at_grams(400), Seconds(1))
    one.post({posting(): KWH}, at_grams(None), Seconds(2))
    assert list(shown(one, "wattgate_co2e_grams_total").values()) == [pytest.approx(400)]
    assert shown(one, "wattgate_carbon_unknown_energy_joules_total") == {(): 7.2e6}


def test_without_any_energy_and_any_price_there_is_nothing() -> None:
    one = footprint()
    one.post({}, at_grams(400, price=0.2), Seconds(0))
    assert [sample for sample in one.samples() if sample[2] is not None] == []


@given(
    st.lists(
        st.tuples(st.integers(0, 10**13), st.one_of(st.none(), st.floats(0, 5000)), st.sampled_from("abc")), max_size=30
    )
)
def test_footprint_is_the_sum_over_all_changes_of_the_intensity(
    moments: Sequence[tuple[int, float | None, str]],
) -> None:
    one = footprint()
    for second, (energy, grams, tenant) in enumerate(moments):
        one.post({posting(tenant=tenant): Microjoules(energy)}, at_grams(grams), Seconds(second))
    expected = sum(energy / 3.6e12 * grams for energy, grams, _tenant in moments if grams is not None)
    assert sum(shown(one, "wattgate_co2e_grams_total").values()) == pytest.approx(expected)
    assert sum(shown(one, "wattgate_tenant_co2e_grams_total").values()) == pytest.approx(expected)
    unknown = sum(energy for energy, grams, _tenant in moments if grams is None)
    assert shown(one, "wattgate_carbon_unknown_energy_joules_total").get((), 0) == pytest.approx(unknown * 1e-6)


def test_names_beyond_the_cap_become_other_and_no_gram_is_lost() -> None:
    clock = FakeClock()
    one = footprint(1, clock=clock)
    for number in range(5):
        names = {"tenant": f"t{number}", "adapter": f"l{number}"}
        one.post({posting(**names): KWH}, at_grams(100, price=1), Seconds(number))
        clock.advance(2000 if number == 2 else 1)
    assert shown(one, "wattgate_tenant_co2e_grams_total") == {
        ("t0",): pytest.approx(100),
        ("other",): pytest.approx(400),
    }
    clock.advance(4000)  # the silent name gives way
    one.post({posting(tenant="t9", adapter="l9"): KWH}, at_grams(100, price=1), Seconds(9))
    assert shown(one, "wattgate_tenant_co2e_grams_total") == {
        ("t9",): pytest.approx(100),
        ("other",): pytest.approx(500),
    }
    assert sum(shown(one, "wattgate_co2e_grams_total").values()) == pytest.approx(600)
    assert sum(shown(one, "wattgate_cost_total").values()) == pytest.approx(6)
    assert sum(shown(one, "wattgate_tenant_cost_total").values()) == pytest.approx(6)


# --- devices by time --------------------------------------------------------------------------------------------------


def test_time_of_a_device_is_split_equally_over_the_engines_on_it_apart_from_what_joules_emit_and_cost() -> None:
    one = footprint(
        cost={"devices": [{"device": "gpu:0", "price_per_hour": 3.6}]},
        carbon={"devices": [{"device": "gpu:0", "embodied_kg": 1000, "lifetime_years": 4}]},
    )
    both = {posting(): Microjoules(1), posting(engine="b", tenant="none", account=Account.IDLE): Microjoules(0)}
    one.post(both, at_grams(0), Seconds(100))
    one.post({}, at_grams(0), Seconds(1900))
    one.post({posting(device="cpu", **{**NOBODY, "account": Account.OTHER}): KWH}, at_grams(0), Seconds(3700))
    by_the_hour = shown(one, "wattgate_cost_total")
    assert by_the_hour == {
        ("a", "m", "bf16", "bf16", "none", "device", "EUR"): pytest.approx(1.8),
        ("b", "m", "bf16", "bf16", "none", "device", "EUR"): pytest.approx(1.8),
    }
    assert sum(shown(one, "wattgate_embodied_co2e_grams_total").values()) == pytest.approx(28.54, abs=0.005)
    assert sum(shown(one, "wattgate_co2e_grams_total").values()) == 0
    assert shown(one, "wattgate_tenant_cost_total") == {}


def test_device_without_an_engine_costs_on_nobodys_account_and_star_means_every_metered_one() -> None:
    one = footprint(
        cost={"devices": [{"device": "*", "price_per_hour": 3.6}, {"device": "gpu:1", "price_per_hour": 7.2}]}
    )
    one.post({posting(): Microjoules(1)}, at_grams(None), Seconds(0))
    one.post({}, at_grams(None), Seconds(1000))
    assert shown(one, "wattgate_cost_total") == {
        ("a", "m", "bf16", "bf16", "none", "device", "EUR"): pytest.approx(1.0),
        ("none",) * 5 + ("device", "EUR"): pytest.approx(2.0),
    }
    one.post({posting(**NOBODY, account=Account.UNATTRIBUTED): Microjoules(1)}, at_grams(None), Seconds(1000))
    one.post({}, at_grams(None), Seconds(2000))
    assert shown(one, "wattgate_cost_total")[("none",) * 5 + ("device", "EUR")] == pytest.approx(5.0)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=20))
def test_counters_never_fall_whatever_time_does(moments: list[float]) -> None:
    one = footprint(cost={"devices": [{"device": "gpu:0", "price_per_hour": 3.6}]})
    before: dict[tuple[str, ...], float] = {}
    for at in moments:
        one.post({posting(): Microjoules(1)}, at_grams(1, price=1), Seconds(at))
        now = shown(one, "wattgate_cost_total")
        assert all(now[labels] >= value for labels, value in before.items())
        before = now
    passed = max(moments) - moments[0]
    assert before.get(("a", "m", "bf16", "bf16", "none", "device", "EUR"), 0) == pytest.approx(max(0, passed) * 0.001)


def test_every_sample_fits_the_catalogue() -> None:
    one = footprint(
        cost={"devices": [{"device": "*", "price_per_hour": 1}]},
        carbon={"devices": [{"device": "*", "embodied_kg": 1, "lifetime_years": 1}]},
    )
    for second in range(2):
        one.post({posting(): KWH}, at_grams(1, price=1), Seconds(second))
    samples = list(one.samples())
    assert {name for name, _labels, _value in samples} == {
        "wattgate_co2e_grams_total",
        "wattgate_tenant_co2e_grams_total",
        "wattgate_embodied_co2e_grams_total",
        "wattgate_carbon_unknown_energy_joules_total",
        "wattgate_cost_total",
        "wattgate_tenant_cost_total",
    }
    for name, labels, _value in samples:
        assert len(labels) == len(CATALOGUE[name].labels)


def test_exposition_has_what_is_known_and_no_line_of_what_is_not() -> None:
    clock = FakeClock()
    caps = LabelCaps(TelemetrySettings(), clock)
    carbon = CarbonSettings(grams_per_kwh=400)
    intensity = CarbonIntensity(open_sources(carbon), carbon, clock=clock)
    one = Footprint(caps, carbon=carbon, cost=CostSettings())
    one.post({posting(): KWH}, rates_of(intensity.now(), carbon, CostSettings()), clock.monotonic())
    sources = Sources(traffic=Traffic(caps), replicas=list, version="1", samples=(intensity.samples, one.samples))
    text = Exposition(sources, caps=caps, clock=clock).render()[0].decode()
    assert 'wattgate_carbon_info{kind="average",source="configured"} 1.0' in text
    assert 'wattgate_tenant_co2e_grams_total{tenant="acme"} 400' in text
    assert "wattgate_carbon_intensity_grams_per_kwh 400" in text
    assert "\nwattgate_cost_total" not in text
    assert "\nwattgate_carbon_intensity_age_seconds" not in text
