"""What stands beside the six, on examples that can be reckoned by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from server.config.efficiency import PeakSettings
from server.efficiency import EngineFacts, Peaks, engine_facts
from server.fleet import Replica
from server.units import Bytes
from server.wire import Outcome
from tests.efficiency.house import INT4, House, served, small_shape, small_work
from tests.fakes.batches import CARD, replica

FACTS = {"demo-int4": EngineFacts(work=small_work())}


def with_steps(steps: int, **gauges: object) -> Replica:
    return replica(gauges={"steps_total": steps, "running": 0} | gauges)


# --- work over peaks --------------------------------------------------------------------------------------------------
# small_work: 100 FLOPs a fed token, 20 a sampled one, 4 a pair; 1000 bytes a step and 10 a token of context.
# A prompt of 10 and an answer of 5: prefill 10·100 + 55·4 + 20 = 1240; decode 4·120 + (11+12+13+14)·4 = 680.


def test_mfu_is_the_flops_of_the_served_tokens_over_time_and_peak() -> None:
    house = House(facts=FACTS, peaks={"demo-int4": {"flops_per_s": 1000.0}})
    house.serve(served(output_tokens=5), served(output_tokens=5))
    house.pass_time(10)
    assert house.value("flops_per_s") == pytest.approx(2 * (1240 + 680) / 10)
    assert house.value("mfu_ratio") == pytest.approx(2 * (1240 + 680) / 10 / 1000)
    assert house.values()["mfu_ratio"]["note"] == "peak: efficiency.peaks"


def test_cached_prompt_tokens_cost_no_flops() -> None:
    house = House(facts=FACTS)
    house.serve(served(output_tokens=1, cached_tokens=9))
    house.pass_time()
    assert house.value("flops_per_s") == pytest.approx(100 + 10 * 4 + 20)


def test_mbu_is_what_the_steps_had_to_read_over_time_and_peak() -> None:
    house = House(with_steps(0), facts=FACTS, peaks={"gpu:0": {"bytes_per_s": 5000.0}})
    house.serve(served(output_tokens=5))
    house.replicas = [with_steps(6)]
    house.pass_time(4)
    # six steps read the weights, the decoded tokens 11 + 12 + 13 + 14 tokens of context
    assert house.value("mbu_ratio") == pytest.approx((6 * 1000 + 50 * 10) / 4 / 5000)


def test_idle_engine_uses_nothing_of_its_peaks_and_that_is_known() -> None:
    peaks = {"demo-int4": {"flops_per_s": 1000.0, "bytes_per_s": 1000.0}}
    house = House(with_steps(9), facts=FACTS, peaks=peaks)
    house.pass_time(5)
    assert (house.value("mfu_ratio"), house.value("mbu_ratio")) == (0.0, 0.0)


def test_work_of_requests_that_still_run_is_unknown_not_nought() -> None:
    peaks = {"demo-int4": {"flops_per_s": 1000.0, "bytes_per_s": 1000.0}}
    house = House(with_steps(0, running=1), facts=FACTS, peaks=peaks)
    house.replicas = [with_steps(50, running=1)]
    house.pass_time(5)
    assert (house.value("mfu_ratio"), house.value("mbu_ratio")) == (None, None)
    assert "none has ended" in house.values()["mfu_ratio"]["why_absent"]


def test_without_peak_or_model_or_steps_there_is_no_utilization_and_a_reason() -> None:
    house = House(facts=FACTS)
    house.pass_time()
    assert house.values()["mfu_ratio"]["why_absent"].startswith("the peak FLOP/s of its device are unknown")
    assert house.values()["mbu_ratio"]["why_absent"] == "the engine did not tell how many steps it made in the last 1 s"
    unknown = House()
    unknown.pass_time()
    assert unknown.values()["mfu_ratio"]["why_absent"] == "the FLOPs of its architecture are unknown"


def test_flops_are_counted_by_phase_and_never_fall() -> None:
    house = House(facts=FACTS, window_s=5)
    labels = ("wattgate_model_flops_total", *INT4[:4])
    seen = []
    for _ in range(20):
        house.serve(served(output_tokens=5))
        house.pass_time()
        seen.append(house.samples()[*labels, "prefill"])
    assert seen == [1240.0 * number for number in range(1, 21)]
    assert house.samples()[*labels, "decode"] == 20 * 680.0


def test_flops_of_a_decoded_token_are_stated_at_a_context_of_1024() -> None:
    assert House(facts=FACTS).value("token_flops") == 120 + 1024 * 4


def test_vllm_s_own_count_is_marked_where_it_is_wrong_or_not_there() -> None:
    plain = replace(CARD, quantization="none")
    house = House(replica(card=plain))
    assert house.values()["engine_flops_per_s"]["why_absent"].startswith("unsupported: ")
    house = House(replica(card=replace(plain, shape=small_shape())))
    assert "enable_mfu_metrics" in house.values()["engine_flops_per_s"]["why_absent"]


# --- peaks ------------------------------------------------------------------------------------------------------------


def peak_of(engine: Replica, peaks: dict[str, dict[str, float]], names: dict[int, str]) -> tuple[object, object]:
    found = {name: PeakSettings.model_validate(settings) for name, settings in peaks.items()}
    peak = Peaks(found, names.get).of(engine, EngineFacts())
    return peak.flops_per_s, peak.bytes_per_s


H100 = "NVIDIA H100 80GB HBM3"
BF16 = replace(CARD, activation_bits=16)


def test_a_configured_peak_goes_before_the_table_for_what_it_says() -> None:
    assert peak_of(replica(card=BF16), {}, {0: H100}) == (989.5e12, 3350e9)
    assert peak_of(replica(card=BF16), {"gpu:0": {"flops_per_s": 7e14}}, {0: H100}) == (7e14, 3350e9)
    by_engine = {"gpu:0": {"flops_per_s": 7e14}, "demo-int4": {"flops_per_s": 5e14}}
    assert peak_of(replica(card=BF16), by_engine, {}) == (5e14, None)


def test_gpus_of_one_engine_add_up_and_differing_ones_are_unknown() -> None:
    engine = replica(device="gpu:0,1", card=BF16)
    assert peak_of(engine, {}, {0: H100, 1: H100}) == (2 * 989.5e12, 2 * 3350e9)
    assert peak_of(engine, {}, {0: H100, 1: "NVIDIA L4"}) == (None, None)
    assert peak_of(engine, {"gpu:0": {"flops_per_s": 1.0}, "gpu:1": {"flops_per_s": 2.0}}, {}) == (3.0, None)
    assert peak_of(engine, {"gpu:0": {"flops_per_s": 1.0}}, {}) == (None, None)


def test_a_device_in_no_table_has_no_peak() -> None:
    assert peak_of(replica(), {}, {0: "Some GPU"}) == (None, None)
    assert peak_of(replica(device="cpu"), {}, {}) == (None, None)


def test_int8_arithmetic_has_its_own_peak() -> None:
    card = replace(CARD, precision="int8", activation_bits=8)
    assert peak_of(replica(card=card), {}, {0: H100})[0] == 1979e12


# --- speed and energy -------------------------------------------------------------------------------------------------


def test_tokens_per_second_are_those_of_the_wall_clock() -> None:
    house = House()
    house.serve(*[served(2.0, 30)] * 4)  # all at the same time
    house.pass_time(10)
    assert house.value("output_tokens_per_s") == 12.0
    assert house.value("output_tokens_per_busy_s") == 60.0
    assert house.value("at_tokens_per_s") == 15.0


def test_goodput_counts_what_kept_the_slo() -> None:
    house = House(slo={"ttft_s": 0.15, "itl_s": 1.0})
    house.serve(served(0.5), served(0.6), served(2.0), served(outcome=Outcome.TRUNCATED))
    house.energy.closed_until = house.clock.monotonic()
    house.pass_time()
    house.energy.post(4.0)
    house.pass_time()
    assert house.value("goodput_requests_per_s") == 1.0
    assert house.value("good_requests_ratio") == 0.5
    assert House().values()["goodput_requests_per_s"]["why_absent"] == "no SLO is configured (efficiency.slo)"


def test_joules_of_tokens_and_requests_with_and_without_idle() -> None:
    house = House(slo={"ttft_s": 0.15, "itl_s": 1.0})
    house.pass_time()
    house.serve(served(0.5, 10), served(0.6, 10), served(2.0, 20), served(output_tokens=10, outcome=Outcome.CANCELLED))
    house.energy.post(5.0, phase="prefill")
    house.energy.post(10.0, phase="decode")
    house.energy.post(30.0, "idle")
    house.pass_time()
    assert house.value("output_token_j") == pytest.approx(15 / 50)
    assert house.value("output_token_with_idle_j") == pytest.approx(45 / 50)
    assert house.value("request_j") == pytest.approx(5.0)
    assert house.value("request_with_idle_j") == pytest.approx(15.0)
    assert house.value("good_request_j") == pytest.approx(7.5)


def test_grams_are_those_that_the_carbon_accounts_hold() -> None:
    house = House()
    assert house.value("co2e_g") is None
    house.grams = {INT4: 1.5, (*INT4[:4], "json"): 0.5, ("gone", *INT4[1:]): 9.0}
    assert house.value("co2e_g") == 2.0
    assert house.value("co2e_g", "engine,adapter") == 1.5


# --- memory and facts -------------------------------------------------------------------------------------------------


def test_memory_by_kind() -> None:
    gauges = {"kv_usage_ratio": 0.25, "kv_capacity_tokens": 4000}
    house = House(
        replica(name="one", memory_bytes=7, gauges=gauges), replica(name="two", memory_bytes=8, gauges=gauges)
    )
    assert house.value("kv_bytes", "variant") == 2 * 0.25 * 4000 * 1024
    assert house.value("weights_bytes", "variant") == 8_000_000
    assert house.value("memory_bytes", "variant") == 15
    house.replicas.append(replica(name="three"))
    assert house.value("memory_bytes", "variant") is None
    assert house.value("kv_bytes", "variant") is None


def test_facts_that_differ_within_a_row_are_not_mixed() -> None:
    house = House(replica(name="one"), replica(name="two", card=replace(CARD, size_bytes=Bytes(1))))
    cell = house.values("variant")["size_bytes"]
    assert (cell["value"], cell["why_absent"]) == (None, "its engines serve different checkpoints: ask by variant")
    assert house.value("parameters", "variant") == 4_200_000


def test_facts_of_an_engine_that_runs_elsewhere_are_unknown() -> None:
    house = House(replica(card=None, device="remote", pid=None))
    house.pass_time()
    values = house.values()
    unknown = ("parameters", "size_bytes", "weight_bits", "token_flops", "weights_bytes", "kv_bytes", "mcr_ratio")
    assert {key: values[key]["value"] for key in unknown} == dict.fromkeys(unknown)
    assert engine_facts(None, None) == EngineFacts()
