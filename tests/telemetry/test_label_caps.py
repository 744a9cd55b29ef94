"""No label takes an unbounded value, and nothing is lost to a cap."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from server.config import TelemetrySettings
from server.telemetry import LabelCap, LabelCaps, Traffic
from server.telemetry.observations import DURATION
from tests.fakes.batches import batch, record, worker
from tests.fakes.clock import FakeClock


def test_names_beyond_the_cap_become_other_and_known_ones_stay() -> None:
    cap = LabelCap(2, FakeClock())
    assert [cap(name) for name in ("a", "b", "c", "a", "c")] == ["a", "b", "other", "a", "other"]


def test_no_adapter_is_always_itself_and_takes_no_place() -> None:
    cap = LabelCap(1, FakeClock())
    assert [cap("none"), cap("other"), cap("a")] == ["none", "other", "a"]


def test_longest_silent_name_gives_way_after_an_hour_and_is_folded() -> None:
    clock, folded = FakeClock(), list[str]()
    cap = LabelCap(2, clock)
    cap.on_evict(folded.append)
    cap("a")
    cap("b")
    clock.advance(3599)
    cap("a")
    assert cap("c") == "other"
    clock.advance(2)
    assert cap("c") == "c"
    assert folded == ["b"]
    assert cap("b") == "other"


def test_looking_at_a_label_does_not_take_a_place() -> None:
    cap = LabelCap(1, FakeClock())
    assert cap.shown("a") == "a"
    assert cap("b") == "b"
    assert (cap.shown("a"), cap.shown("b"), cap.shown("none")) == ("other", "b", "none")


@given(
    st.lists(
        st.tuples(st.sampled_from("abcdef"), st.sampled_from("uvwxyz"), st.sampled_from([0, 1, 2000])), max_size=40
    )
)
def test_totals_survive_any_order_of_evictions(requests: list[tuple[str, str, int]]) -> None:
    clock = FakeClock()
    caps = LabelCaps(TelemetrySettings(max_adapters=2, max_tenants=2), clock)
    traffic = Traffic(caps)
    for seq, (adapter, tenant, pause) in enumerate(requests, start=1):
        clock.advance(pause)
        traffic.take(batch(seq, records=[record(adapter=adapter, tenant=tenant)]), worker())
    now = traffic.now()
    assert len({labels[4] for labels in now.requests}) <= 3
    assert len({labels[4] for labels in now.histograms[DURATION]}) <= 3
    assert len({labels[0] for labels in now.tenant_requests}) <= 3
    count = len(requests)
    assert sum(now.requests.values()) == sum(now.tenant_requests.values()) == count
    assert sum(sum(row.buckets) for row in now.histograms[DURATION].values()) == count
    assert sum(amount for labels, amount in now.tokens.items() if labels[-1] == "output") == 5 * count
    assert sum(now.chunks.values()) == 5 * count
    last_seen = Counter({adapter: index for index, (adapter, _, _) in enumerate(requests)})
    assert {labels[4] for labels in now.requests} <= {*last_seen, "other"}


def test_budget_of_series_lets_adapters_share_other_before_any_family_has_to_go() -> None:
    caps = LabelCaps(TelemetrySettings(max_adapters=1000, max_series=1000), FakeClock())
    traffic = Traffic(caps)
    records = [record(adapter=f"adapter-{number}") for number in range(100)]
    traffic.take(batch(records=records), worker())
    rows = traffic.now().histograms[DURATION]
    assert len(rows) < 10
    assert sum(sum(row.buckets) for row in rows.values()) == 100
