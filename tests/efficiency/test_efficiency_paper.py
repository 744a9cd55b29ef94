"""The six metrics, on examples that can be reckoned by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from server.efficiency import EngineFacts
from server.efficiency.use import Use
from server.fleet import Replica
from server.models.quality import Quality
from server.units import Bytes
from tests.efficiency.house import House, served
from tests.fakes.batches import CARD, record, replica

BF16 = ("demo-bf16", "demo", "bf16", "bf16", "none")


def engine(variant: str, size: int, **fields: object) -> Replica:
    card = replace(CARD, size_bytes=Bytes(size))
    return replica(name=f"demo-{variant}", variant=variant, precision=variant, card=card, **fields)


def perplexity(value: float, dataset: str = "heldout") -> Quality:
    return Quality(metric="perplexity", dataset=dataset, value=value)


def test_amu_is_the_mean_of_used_over_total() -> None:
    house = House()
    for held in (2, 4, 4, 6):
        house.uses.uses["demo-int4"] = Use(memory_held_bytes=held, memory_allowed_bytes=8)
        house.pass_time()
    assert house.value("amu_ratio") == pytest.approx((2 + 4 + 4 + 6) / 4 / 8)


def test_amu_leaves_out_the_time_for_which_nobody_knows() -> None:
    house = House()
    for use in (Use(memory_held_bytes=2, memory_allowed_bytes=8), Use(memory_held_bytes=2), Use()):
        house.uses.uses["demo-int4"] = use
        house.pass_time()
    assert house.value("amu_ratio") == 0.25
    empty = House()
    empty.pass_time(5)
    assert empty.value("amu_ratio") is None


def test_pcu_is_the_mean_utilization_however_seldom_it_is_told() -> None:
    house = House()
    for use in (Use(), Use(compute_s=10.0, compute_busy_s=2.0), Use(), Use(compute_s=5.0, compute_busy_s=4.0)):
        house.uses.uses["demo-int4"] = use
        house.pass_time()
    assert house.value("pcu_ratio") == pytest.approx(6.0 / 15.0)


def test_al_is_the_sum_of_latencies_over_the_number_of_requests() -> None:
    house = House()
    house.serve(served(0.5), served(1.0), served(3.0))
    house.pass_time()
    assert house.value("al_s") == pytest.approx(1.5)


def test_at_is_all_output_tokens_over_all_latencies() -> None:
    """Not the mean of the requests' speeds, which is 30 here."""
    house = House()
    house.serve(served(1.0, 50), served(3.0, 30))
    house.pass_time()
    assert house.value("at_tokens_per_s") == pytest.approx(80 / 4)


def test_aec_is_the_mean_power_with_idle_and_unattributed_joules() -> None:
    house = House()
    house.pass_time()
    for _ in range(10):
        house.energy.post(6.0, "active", phase="decode")
        house.energy.post(2.0, "active", phase="prefill")
        house.energy.post(3.0, "idle")
        house.energy.post(1.0, "unattributed")
        house.energy.post(50.0, "other", ("none", "none", "none", "none", "none"))
        house.pass_time()
    assert house.value("aec_w") == pytest.approx(12.0)
    assert house.value("active_w") == pytest.approx(8.0)
    assert house.values()["aec_w"]["note"] == "scope: estimated"


def test_aec_of_a_variant_adds_up_its_engines() -> None:
    house = House(replica(name="one"), replica(name="two"))
    house.pass_time()
    for _ in range(5):
        for name, joules in (("one", 4.0), ("two", 6.0)):
            house.energy.post(joules, "idle", (name, "demo", "int4", "int4", "none"))
        house.pass_time()
    assert house.value("aec_w", "variant") == pytest.approx(10.0)
    house.replicas.append(replica(name="three", device="remote"))
    house.pass_time()
    assert house.values("variant")["aec_w"]["why_absent"] == "no meter counted the energy of three in the last 7 s"


def test_mcr_is_the_ratio_of_sizes_times_that_of_performances() -> None:
    facts = {
        "demo-bf16": EngineFacts(qualities=(perplexity(10.0),)),
        "demo-int4": EngineFacts(qualities=(perplexity(12.5),)),
    }
    house = House(engine("int4", 2_500), engine("bf16", 10_000), facts=facts)
    house.pass_time()
    int4, bf16 = house.values(row=0), house.values(row=1)
    assert int4["compression_ratio"]["value"] == 4.0
    assert int4["quality_ratio"]["value"] == pytest.approx(0.8)
    assert int4["mcr_ratio"]["value"] == pytest.approx(4.0 * 10.0 / 12.5)
    assert int4["mcr_ratio"]["note"] == "perplexity:heldout"
    assert bf16["mcr_ratio"]["value"] == 1.0


def test_mcr_takes_a_task_score_before_perplexity() -> None:
    score = Quality(metric="exact_match", dataset="questions", value=0.6)
    facts = {
        "demo-bf16": EngineFacts(qualities=(perplexity(10.0), replace(score, value=0.8))),
        "demo-int4": EngineFacts(qualities=(perplexity(10.0), score)),
    }
    house = House(engine("bf16", 10_000), engine("int4", 5_000), facts=facts)
    house.pass_time()
    cell = house.values(row=1)["mcr_ratio"]
    assert (cell["value"], cell["note"]) == (pytest.approx(2.0 * 0.6 / 0.8), "exact_match:questions")


def test_scores_on_different_data_are_not_compared() -> None:
    facts = {
        "demo-bf16": EngineFacts(qualities=(perplexity(10.0, "news"),)),
        "demo-int4": EngineFacts(qualities=(perplexity(12.5, "heldout"),)),
    }
    house = House(engine("bf16", 10_000), engine("int4", 2_500), facts=facts)
    house.pass_time()
    values = house.values(row=1)
    assert values["mcr_ratio"]["value"] is None
    assert "quality.json" in values["mcr_ratio"]["why_absent"]
    assert values["compression_ratio"]["value"] == 4.0


def test_broken_file_of_scores_is_the_reason() -> None:
    facts = {"demo-int4": EngineFacts(quality_problem="quality.json: cannot be read (…).")}
    house = House(facts=facts)
    assert house.values()["mcr_ratio"]["why_absent"] == "quality.json: cannot be read (…)."


@pytest.mark.parametrize(
    ("variants", "reference"),
    [
        (("int4", "fp16", "bf16"), "bf16"),
        (("int4", "fp32", "fp16"), "fp16"),
        (("int8", "int4"), "int8"),
    ],
)
def test_reference_is_the_plainest_variant_else_the_first(variants: tuple[str, ...], reference: str) -> None:
    house = House(*(engine(variant, 1000) for variant in variants))
    assert house.values()["compression_ratio"]["note"] == f"reference: {reference}"


def test_reference_is_one_of_the_same_model() -> None:
    other = replica(
        name="big", model="big", variant="bf16", precision="bf16", card=replace(CARD, size_bytes=Bytes(10**9))
    )
    house = House(other, engine("int8", 8_000), engine("int4", 4_000))
    assert house.values(row=2)["compression_ratio"]["value"] == 2.0


def test_adapters_have_latency_and_speed_and_joules_and_no_power_of_their_own() -> None:
    house = House()
    house.pass_time()
    house.serve(served(1.0, 10), record(adapter="json", received_at=1000.0, ended_at=1002.0, output_tokens=10))
    house.energy.post(2.0, configuration=("demo-int4", "demo", "int4", "int4", "none"))
    house.energy.post(6.0, configuration=("demo-int4", "demo", "int4", "int4", "json"))
    house.energy.post(9.0, "idle")
    house.pass_time()
    none, json = (house.values("variant,adapter", row=row) for row in (0, 1))
    assert (none["al_s"]["value"], json["al_s"]["value"]) == (pytest.approx(1.0), pytest.approx(2.0))
    assert (none["output_token_j"]["value"], json["output_token_j"]["value"]) == (
        pytest.approx(0.2),
        pytest.approx(0.6),
    )
    assert json["output_token_j"]["rank"] == 2
    for key in ("amu_ratio", "pcu_ratio", "aec_w", "mcr_ratio", "output_token_with_idle_j", "mfu_ratio"):
        assert json[key]["value"] is None
        assert json[key]["why_absent"] == "it is the engine's, not an adapter's: ask without `adapter`"
