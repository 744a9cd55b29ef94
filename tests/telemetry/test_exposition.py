"""What a scraper gets: parsed, not compared as text."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from prometheus_client.samples import Sample

from server.accounts import EnergyPrice
from server.config import TelemetrySettings
from server.fleet import Ejection, EngineState, Replica
from server.telemetry import CATALOGUE, AdapterLoad, EnergyFigures, Exposition, LabelCaps, Sources, Traffic
from server.telemetry.metric import Kind
from server.units import Microjoules, Seconds
from server.wire import Outcome
from tests.fakes.batches import batch, record, replica, tokens, used, worker
from tests.fakes.clock import FakeClock

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
ENGINE = {"engine": "demo-int4", "model": "demo", "variant": "int4", "precision": "int4"}
ALL_GAUGES = {
    "running": 2,
    "waiting": 1,
    "kv_usage_ratio": 0.5,
    "kv_capacity_tokens": 2048,
    "prompt_tokens_total": 100,
    "output_tokens_total": 50,
    "prefix_cache_queries_total": 100,
    "prefix_cache_hits_total": 20,
    "preemptions_total": 0,
}


PRICE = EnergyPrice(
    prompt_token=20.0,
    output_token=200.0,
    marginal_output_token=None,
    scope="estimated",
    method="token_share",
    confidence=0.3,
)


@dataclass(frozen=True)
class Figures:
    """Energy as the accountant would say it."""

    devices: Any = field(default_factory=lambda: {("cpu", "estimated"): Microjoules(3_000_001)})
    accounts: Any = field(
        default_factory=lambda: {
            ("cpu", "estimated", *ENGINE.values(), "none", "active", "prefill"): Microjoules(400_000),
            ("cpu", "estimated", *ENGINE.values(), "none", "active", "decode"): Microjoules(600_001),
            ("cpu", "estimated", *("none",) * 5, "other", "none"): Microjoules(2_000_000),
        }
    )
    tenants: Any = field(default_factory=lambda: {("alice", "estimated"): Microjoules(1_000_001)})
    tenants_idle: Any = field(default_factory=lambda: {("alice", "estimated"): Microjoules(7)})
    saved: Any = field(default_factory=lambda: {tuple(ENGINE.values()): Microjoules(11)})
    prices: Any = field(default_factory=lambda: {tuple(ENGINE.values()): PRICE})
    residuals: Any = field(default_factory=lambda: {"cpu": -5_000})
    silent: frozenset[str] = frozenset()
    meters: Any = field(default_factory=lambda: {"cpu_estimate": (True, Seconds(0.5))})
    method: str = "token_share"
    confidence: float = 0.3


Make = Callable[..., Exposition]


@pytest.fixture
def make(traffic: Traffic, caps: LabelCaps, clock: FakeClock) -> Make:
    def exposition(
        *replicas: Replica,
        energy: EnergyFigures | None = None,
        adapters: list[AdapterLoad] | None = None,
        samples: Any = (),
    ) -> Exposition:
        sources = Sources(
            traffic=traffic,
            replicas=lambda: replicas,
            version="1.2.3",
            energy=None if energy is None else lambda: energy,
            adapters=None if adapters is None else lambda: adapters,
            samples=samples,
        )
        return Exposition(sources, caps=caps, clock=clock)

    return exposition


def samples(exposition: Exposition) -> list[Sample]:
    body, _ = exposition.render()
    return [sample for family in parse_text(body.decode()) for sample in family.samples]


def values(exposition: Exposition, name: str, **labels: str) -> list[float]:
    return [s.value for s in samples(exposition) if s.name == name and labels.items() <= s.labels.items()]


def busy(traffic: Traffic) -> None:
    """Something of everything."""
    ended = [
        record(id="one", adapter="json"),
        record(
            id="two",
            outcome=Outcome.CANCELLED,
            cancelled_when="queued",
            tokens_spared=64,
            sent_at=None,
            first_token_at=None,
        ),
        record(id="three", output_tokens=None),
    ]
    gauges: dict[str, Any] = {
        "in_flight": {"demo-int4": 1},
        "queued": 2,
        "loop_lags_s": [0.001],
        "records_dropped": 1,
        "rejections": {"queue_full": 3},
        "retries": {"connect": 1},
    }
    traffic.take(batch(records=ended, streams=[tokens([1.0, 1.01])], **gauges), worker())
    traffic.take_energies([used("one", 5_000, adapter="json")])


def from_others() -> list[tuple[str, tuple[str, ...], float]]:
    """What carbon, the ledger and efficiency say: one sample of each metric."""
    groups = ("carbon", "ledger", "efficiency", "load", "quality")
    return [(one.name, ("x",) * len(one.labels), 1.0) for one in CATALOGUE.values() if one.group in groups]


def full(make: Make, traffic: Traffic) -> Exposition:
    busy(traffic)
    one = replica(gauges=ALL_GAUGES, memory_bytes=9, adapters=frozenset({"json"}))
    loads = [AdapterLoad(engine="demo-int4", adapter="json", loaded=True, load_s=Seconds(0.1))]
    exposition = make(one, energy=Figures(), adapters=loads, samples=[from_others])
    exposition.render()
    return exposition


def test_promtool_has_no_complaint(make: Make, traffic: Traffic) -> None:
    body, _ = full(make, traffic).render()
    checked = subprocess.run(["promtool", "check", "metrics"], input=body, capture_output=True, timeout=60, check=False)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


def test_every_metric_of_the_catalogue_appears_with_exactly_its_labels(make: Make, traffic: Traffic) -> None:
    found: dict[str, set[str]] = {}
    for sample in samples(full(make, traffic)):
        name = sample.name
        for suffix in ("_bucket", "_count", "_sum"):
            if CATALOGUE.get(name.removesuffix(suffix), None) and name not in CATALOGUE:
                name = name.removesuffix(suffix)
        found.setdefault(name, set()).update(sample.labels.keys() - {"le"})
    ours = {name: labels for name, labels in found.items() if name.startswith("wattgate_")}
    assert ours == {name: set(metric.labels) for name, metric in CATALOGUE.items()}


def test_openmetrics_parses_names_units_and_carries_the_request_as_an_exemplar(make: Make, traffic: Traffic) -> None:
    body, content_type = full(make, traffic).render(OPENMETRICS)
    assert content_type.startswith("application/openmetrics-text")
    families = {family.name: family for family in parse_openmetrics(body.decode())}
    for metric in CATALOGUE.values():
        name = metric.name.removesuffix("_total").removesuffix("_info" if metric.kind is Kind.INFO else "")
        assert families[name].type == metric.kind
        assert families[name].unit == (metric.unit or "")
    for name in ("wattgate_time_to_first_token_seconds", "wattgate_request_duration_seconds"):
        exemplars = [s.exemplar.labels["request_id"] for s in families[name].samples if s.exemplar]
        assert "one" in exemplars


@pytest.mark.parametrize(
    "accept",
    [
        "",
        OPENMETRICS,
        "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8",
        "application/openmetrics-text;version=1.0.0;escaping=dots",
        "text/plain;version=1.0.0;escaping=values",
    ],
)
def test_body_is_byte_for_byte_what_the_client_library_writes(make: Make, traffic: Traffic, accept: str) -> None:
    traffic.take(batch(records=[record(tenant='a"b\\c\nd', id='x"\\\n')]), worker("first"))
    exposition = full(make, traffic)
    expected = CollectorRegistry(auto_describe=False)
    expected.register(exposition)
    write, content_type = choose_encoder(accept)
    for _ in range(2):  # the second time from what it remembers
        body, said = exposition.render(accept)
        assert said == content_type
        ours = [line for line in body.splitlines() if b"wattgate_" in line or line == b"# EOF"]
        assert ours == write(expected).splitlines()


def test_text_is_the_default_and_says_so(make: Make) -> None:
    _, content_type = make().render("*/*")
    assert content_type.startswith("text/plain")


def test_long_request_id_is_cut_to_what_openmetrics_allows(make: Make, traffic: Traffic) -> None:
    traffic.take(batch(records=[record(id="x" * 500)]), worker())
    body, _ = make().render(OPENMETRICS)
    exemplars = [s.exemplar for f in parse_openmetrics(body.decode()) for s in f.samples if s.exemplar]
    assert exemplars
    assert all(sum(map(len, [*e.labels, *e.labels.values()])) <= 128 for e in exemplars)


def test_label_values_with_quotes_and_newlines_survive(make: Make, traffic: Traffic) -> None:
    tenant = 'a"b\\c\nd'
    traffic.take(batch(records=[record(tenant=tenant)]), worker())
    assert values(make(), "wattgate_tenant_requests_total", tenant=tenant) == [1]


def test_unknown_is_absent_never_zero(make: Make) -> None:
    exposition = make(replica(card=None, gauges=None, pid=None, engine_version=None))
    names = {sample.name for sample in samples(exposition)}
    unknown = {
        "wattgate_kv_cache_usage_ratio",
        "wattgate_engine_requests_running",
        "wattgate_engine_output_tokens_total",
        "wattgate_model_parameters",
        "wattgate_memory_bytes",
        "wattgate_device_energy_joules_total",
        "wattgate_meter_up",
        "wattgate_queue_depth",
        "wattgate_requests_in_flight",
        "wattgate_scrape_duration_seconds",
    }
    assert not names & unknown
    assert values(exposition, "wattgate_engine_info", engine="demo-int4", engine_version="") == [1]


def test_gauges_that_an_engine_leaves_out_are_left_out_one_by_one(make: Make) -> None:
    exposition = make(replica(gauges={"running": 0, "kv_usage_ratio": 0.25}))
    assert values(exposition, "wattgate_engine_requests_running") == [0]
    assert values(exposition, "wattgate_kv_cache_usage_ratio") == [0.25]
    assert values(exposition, "wattgate_engine_requests_waiting") == []


def test_bytes_per_weight_are_an_eighth_of_the_bits(make: Make) -> None:
    exposition = make(replica())
    assert values(exposition, "wattgate_model_bytes_per_weight") == [pytest.approx(7.6 / 8)]
    assert values(exposition, "wattgate_model_linear_bytes_per_weight") == [pytest.approx(4.25 / 8)]


def test_state_is_one_for_the_state_and_zero_for_every_other(make: Make) -> None:
    exposition = make(replica(state=EngineState.BACKOFF))
    assert values(exposition, "wattgate_engine_state", state="backoff") == [1]
    assert sorted(values(exposition, "wattgate_engine_state")) == [0] * (len(EngineState) - 1) + [1]


def test_ejections_are_counted_by_reason_and_zero_is_told_too(make: Make) -> None:
    exposition = make(replica(ejections={Ejection.HUNG: 2}))
    assert values(exposition, "wattgate_engine_ejections_total", reason="hung") == [2]
    assert values(exposition, "wattgate_engine_ejections_total", reason="silent") == [0]


@pytest.mark.parametrize(("device", "kind"), [("cpu", "resident"), ("gpu:0", "device_used")])
def test_memory_says_what_each_number_is(make: Make, device: str, kind: str) -> None:
    exposition = make(replica(device=device, memory_bytes=7, gauges=ALL_GAUGES))
    found = {s.labels["kind"]: s.value for s in samples(exposition) if s.name == "wattgate_memory_bytes"}
    assert found == {"weights": 4_000_000, "kv_capacity": 2048 * 1024, "kv": 1024 * 1024, kind: 7}


def test_in_flight_is_zero_for_an_idle_engine_of_a_connected_worker(make: Make, traffic: Traffic) -> None:
    traffic.take(batch(in_flight={"gone": 2}), worker())
    exposition = make(replica())
    assert values(exposition, "wattgate_requests_in_flight", **ENGINE) == [0]
    assert values(exposition, "wattgate_requests_in_flight", engine="gone", model="none") == [2]


def test_adapter_that_should_be_loaded_and_is_not_shows_zero(make: Make) -> None:
    loads = [AdapterLoad(engine="demo-int4", adapter="json", loaded=False, load_s=None)]
    exposition = make(replica(), adapters=loads)
    assert values(exposition, "wattgate_adapter_loaded", adapter="json", **ENGINE) == [0]
    assert values(exposition, "wattgate_adapter_load_seconds") == []


def test_adapters_that_a_replica_lists_are_loaded(make: Make) -> None:
    exposition = make(replica(adapters=frozenset({"json", "code"})))
    assert values(exposition, "wattgate_adapter_loaded") == [1, 1]


def test_accounts_add_up_to_the_device(make: Make) -> None:
    exposition = make(energy=Figures())
    accounts = values(exposition, "wattgate_energy_joules_total", device="cpu")
    assert sum(accounts) == pytest.approx(sum(values(exposition, "wattgate_device_energy_joules_total")), abs=1e-9)


def test_meter_that_is_down_and_never_read_shows_zero_and_no_age(make: Make) -> None:
    nothing: Any = {"devices": {}, "accounts": {}, "tenants": {}, "tenants_idle": {}, "saved": {}, "prices": {}}
    exposition = make(energy=Figures(**nothing, residuals={}, meters={"nvml": (False, None)}))
    assert values(exposition, "wattgate_meter_up", meter="nvml") == [0]
    joules = {one.name for one in samples(exposition) if "joules" in one.name or "meter_age" in one.name}
    assert {name for name in joules if not name.startswith("wattgate_request_energy")} == set()


def test_counters_of_a_device_that_cannot_be_read_stop(make: Make) -> None:
    both = {("cpu", "estimated"): Microjoules(3), ("gpu:0", "gpu"): Microjoules(5)}
    exposition = make(energy=Figures(devices=both, silent=frozenset({"cpu"})))
    assert values(exposition, "wattgate_device_energy_joules_total") == [pytest.approx(5e-6)]
    assert values(exposition, "wattgate_energy_joules_total", device="cpu") == []
    assert values(exposition, "wattgate_tenant_energy_joules_total", tenant="alice") != []
    exposition = make(energy=Figures(silent=frozenset({"cpu"})))
    assert values(exposition, "wattgate_tenant_energy_joules_total") == []


def test_price_that_is_not_known_is_absent(make: Make) -> None:
    prices = {tuple(ENGINE.values()): PRICE._replace(prompt_token=None)}
    exposition = make(energy=Figures(prices=prices))
    assert values(exposition, "wattgate_output_token_price_joules", **ENGINE) == [pytest.approx(200e-6)]
    assert values(exposition, "wattgate_prompt_token_price_joules") == []


def test_histogram_buckets_are_cumulative_and_end_with_the_count(make: Make, traffic: Traffic) -> None:
    traffic.take(batch(records=[record(ended_at=1000.0 + s) for s in (0.03, 0.3, 7000.0)]), worker())
    name = "wattgate_request_duration_seconds"
    buckets = [(s.labels["le"], s.value) for s in samples(make()) if s.name == f"{name}_bucket"]
    counts = [count for _, count in buckets]
    assert counts == sorted(counts)
    assert buckets[-1] == ("+Inf", 3)
    assert dict(buckets)["600.0"] == 2
    assert values(make(), f"{name}_count") == [3]


def test_scrape_duration_is_the_one_of_the_scrape_before(make: Make, traffic: Traffic, clock: FakeClock) -> None:
    def slow() -> EnergyFigures:
        clock.advance(0.25)
        return Figures()

    sources = Sources(traffic=traffic, replicas=list, version="1", energy=slow)
    exposition = Exposition(sources, caps=LabelCaps(TelemetrySettings(), clock), clock=clock)
    exposition.render()
    assert values(exposition, "wattgate_scrape_duration_seconds") == [0.25]


def test_series_are_counted_and_kept_within_the_budget(traffic: Traffic, clock: FakeClock) -> None:
    busy(traffic)
    caps = LabelCaps(TelemetrySettings(max_series=1000), clock)
    replicas = [replica(name=f"engine-{number}", gauges=ALL_GAUGES) for number in range(60)]
    exposition = Exposition(Sources(traffic=traffic, replicas=lambda: replicas, version="1"), caps=caps, clock=clock)
    exposition.render()  # the first has no duration of the one before
    found = [sample for sample in samples(exposition) if sample.name.startswith("wattgate_")]
    assert len(found) <= 1000
    assert values(exposition, "wattgate_series") == [len(found)]
    assert values(exposition, "wattgate_series_left_out")[0] > 0
    assert len({s.labels["engine"] for s in found if s.name == "wattgate_engine_state"}) in (0, 60)


def test_two_expositions_in_one_process_share_nothing(traffic: Traffic, clock: FakeClock) -> None:
    caps = LabelCaps(TelemetrySettings(), clock)
    busy(traffic)
    other = Traffic(caps)
    sources = Sources(traffic=other, replicas=list, version="1")
    assert values(Exposition(sources, caps=caps, clock=clock), "wattgate_requests_total") == []


def test_rendering_in_threads_while_batches_come_sees_each_batch_whole(make: Make, traffic: Traffic) -> None:
    exposition = make()

    def scrape(_: int) -> tuple[float, float]:
        found = samples(exposition)
        requests = sum(s.value for s in found if s.name == "wattgate_requests_total")
        durations = sum(s.value for s in found if s.name == "wattgate_request_duration_seconds_count")
        return requests, durations

    with ThreadPoolExecutor(2) as pool:
        scrapes = pool.map(scrape, range(10))
        for seq in range(1, 101):
            traffic.take(batch(seq, records=[record()] * 7), worker())
        for requests, durations in scrapes:
            assert requests == durations
            assert requests % 7 == 0


def test_process_metrics_of_the_control_plane_are_there(make: Make) -> None:
    assert values(make(), "process_resident_memory_bytes")[0] > 0
