"""The pure parts of the benchmarks: medians, spread, ratios, tables, sections."""

from __future__ import annotations

import dataclasses
import math

import pytest

from loadgen._compare._student import t_quantile
from tests.benchmarks.document import markdown_table, with_section
from tests.benchmarks.energy_figures import Charged, charged, figures, methods, wrong_figures
from tests.benchmarks.energy_load import Ask
from tests.benchmarks.interval import mean_interval, ratio_interval
from tests.benchmarks.load import Counts, Load, Shape, _Stream
from tests.benchmarks.probes.ground import Cell
from tests.benchmarks.probes.matrix import as_markdown as matrix_as_markdown
from tests.benchmarks.report import as_markdown
from tests.benchmarks.rounds import added, bucket_of, figure, percentile, ratio, slope

ROUNDS = [
    {"ours": {"cpu": 20.0, "worker": 15.0}, "theirs": {"cpu": 10.0}},
    {"ours": {"cpu": 90.0, "worker": 60.0}, "theirs": {"cpu": 45.0}},
    {"ours": {"cpu": 33.0, "worker": 30.0}, "theirs": {"cpu": 11.0}},
    {"ours": {"cpu": 1.0, "worker": 1.0}},
]


def test_percentiles_lie_between_neighbours() -> None:
    assert percentile([4.0, 1.0, 3.0, 2.0], 50) == 2.5
    assert percentile([4.0, 1.0, 3.0, 2.0], 100) == 4.0
    assert percentile([7.0], 99) == 7.0
    with pytest.raises(ValueError, match="no values"):
        percentile([], 50)


def test_rounds_that_disagree_too_much_are_invalid() -> None:
    assert figure([100.0, 101.0, 99.0, 100.0, 300.0]).valid
    noisy = figure([100.0, 200.0, 50.0, 100.0, 180.0])
    assert noisy.spread == pytest.approx(0.8)
    assert not noisy.valid


def test_a_median_of_zero_is_valid_only_if_all_rounds_are_zero() -> None:
    assert figure([0.0, 0.0, 0.0]).valid
    assert figure([-1.0, 0.0, 1.0]).spread == math.inf


def test_ratios_are_taken_within_rounds_that_have_both() -> None:
    """The quotient of the medians would be 1.8 here: the machine was four times slower in one round."""
    found = ratio(ROUNDS, "cpu", "ours", "theirs")
    assert found is not None
    assert (found.median, found.rounds) == (2.0, 3)


def test_a_part_is_compared_with_the_whole_of_another() -> None:
    found = ratio(ROUNDS, "worker", "ours", "theirs", of_base="cpu")
    assert found is not None
    assert found.median == 1.5


def test_what_no_round_has_is_unknown() -> None:
    assert ratio(ROUNDS, "cpu", "ours", "nobody") is None
    assert added(ROUNDS, "latency", "ours", "theirs") is None


def test_added_latency_is_the_difference_within_a_round() -> None:
    found = added(ROUNDS, "cpu", "ours", "theirs")
    assert found is not None
    assert found.median == 22.0


def test_the_slope_is_not_moved_by_a_single_jump() -> None:
    assert slope([0, 1, 2, 3, 4], [10, 11, 12, 500, 14]) == 1.0


def test_the_bucket_that_holds_a_share_of_the_observations() -> None:
    cumulative = {0.01: 980.0, 0.02: 995.0, 0.05: 1000.0, math.inf: 1000.0}
    assert bucket_of(cumulative, 0.99) == 0.02
    assert bucket_of({0.01: 0.0}, 0.99) == math.inf


def test_a_section_is_replaced_and_the_rest_stays() -> None:
    document = "# A\n<!-- x: begin -->\nold\n<!-- x: end -->\ntail\n"
    once = with_section(document, "x", "new\n")
    assert once == "# A\n<!-- x: begin -->\n\nnew\n\n<!-- x: end -->\ntail\n"
    assert with_section(once, "x", "new") == once
    with pytest.raises(ValueError, match="no markers"):
        with_section(document, "y", "new")


def test_a_cell_cannot_break_its_table() -> None:
    assert markdown_table(["", "a|b"], [["r", "1\n2"]]) == "|  | a\\|b |\n| --- | ---: |\n| r | 1 2 |"


def test_the_side_by_side_names_who_is_left_out_and_what_is_invalid() -> None:
    rounds = [
        {
            "ours": {"cpu_us_per_request": cpu, "worker_us_per_request": cpu / 2},
            "vllm-router": {"cpu_us_per_request": 10.0},
        }
        for cpu in (10.0, 20.0, 30.0)
    ]
    machine = dict.fromkeys(("commit", "processor", "cores", "kernel", "python", "nginx"), "?")
    run = {"rounds": rounds, "machine": machine, "left_out": {"smg": "no such package"}, "seconds": 1.0}
    text = as_markdown(run)
    assert "Left out: smg (no such package)." in text
    assert "20.0 [15.0–25.0] INVALID (worker 10.0)" in text  # noqa: RUF001
    assert "| vllm-router | 10.0 [10.0–10.0] | – | 1.00 [1.00–1.00] |" in text  # noqa: RUF001


def test_the_matrix_counts_what_is_right() -> None:
    text = matrix_as_markdown({"ours": {"a": Cell(True, "1 ms"), "b": Cell(False, "lost")}}, {}, "A run.")
    assert "| a | ✓ 1 ms |" in text
    assert "| b | ✗ lost |" in text
    assert "| right | 1/2 |" in text


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 64, 100_000])
def test_chunks_are_counted_however_the_bytes_are_cut(size: int) -> None:
    class Deaf:
        def write(self, data: bytes) -> None: ...

    shape = Shape(connections=1, chunks=40)
    load = Load(1, b"", shape)
    load.counts = Counts()
    stream = _Stream(load)
    stream.transport = Deaf()  # type: ignore[assignment]
    stream.send()
    events = b"".join(b'14\r\ndata: {"content":" tok"}\n\n\r\n' for _ in range(40))
    answer = b"HTTP/1.1 200 OK\r\n\r\n" + events + b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"
    for place in range(0, len(answer), size):
        stream.data_received(answer[place : place + size])
    assert (load.counts.chunks, load.counts.requests, load.counts.failed) == (40, 1, 0)


@pytest.mark.parametrize(("freedom", "expected"), [(1, 12.7062), (2, 4.3027), (9, 2.2622), (30, 2.0423), (200, 1.9719)])
def test_quantiles_of_students_t_are_those_of_the_tables(freedom: int, expected: float) -> None:
    assert t_quantile(0.975, freedom) == pytest.approx(expected, abs=1e-4)


def test_an_interval_of_ratios_is_symmetric_in_their_logarithms() -> None:
    found = ratio_interval([0.5, 2.0])
    assert found.mean == pytest.approx(1.0)
    assert found.low * found.high == pytest.approx(1.0)
    with pytest.raises(ValueError, match="two values"):
        mean_interval([1.0])


def charge(group: str, block: int, role: str, joules: float, tokens: int = 10) -> Charged:
    ask = Ask(model="m", prompt=[1], max_tokens=tokens, group=group, block=block, role=role)
    return Charged(
        ask=ask, joules=joules, decode_joules=0.9 * joules, tokens=tokens, method="phase_time", confidence=0.9
    )


def energy_blocks(*, adapter: float = 3.0, twin: float = 1.0, cut: float = 0.5) -> list[Charged]:
    return [
        one
        for block, machine in enumerate((1.0, 1.7, 0.4))
        for one in (
            *(charge("precision", block, role, machine * joules) for role, joules in (("bf16", 2.0), ("int8", 1.0))),
            *(charge("adapters", block, role, machine) for role in ("base", "mixed base")),
            *(charge("adapters", block, role, machine * adapter) for role in ("adapter", "mixed adapter")),
            *(charge("twins", block, "", machine * joules) for joules in (1.0, 1.0, 1.0, twin)),
            charge("cancelled", block, "whole", machine),
            charge("cancelled", block, "short", machine * 0.5, tokens=5),
            charge("cancelled", block, "cut", machine * cut, tokens=5),
        )
    ]


def test_energy_is_compared_within_blocks() -> None:
    found = figures(energy_blocks())
    assert found["int8_over_bf16"].mean == pytest.approx(0.5)
    assert found["int8_over_bf16"].high - found["int8_over_bf16"].low == pytest.approx(0.0, abs=1e-9)
    assert found["adapter_over_base_together"].mean == pytest.approx(3.0)
    assert found["twins"]["worst"] == pytest.approx(0.0)
    assert found["cancelled_over_as_short"].mean == pytest.approx(1.0)
    assert wrong_figures(found) == []


def test_twins_that_the_engine_computed_apart_are_not_compared() -> None:
    beside, after = ((0.0, 9.0), (0.1, 9.1)), ((0.0, 9.0), (3.0, 12.0))
    for came, blocks in ((beside, 1), (after, None)):
        pair = [dataclasses.replace(charge("twins", 0, "", 1.0), came=one) for one in came]
        found = figures(pair)["twins"]
        assert (found and found["blocks"]) == blocks


@pytest.mark.parametrize(
    ("blocks", "said"),
    [
        (energy_blocks(adapter=1.0), "adapter requests are not charged more"),
        (energy_blocks(twin=1.1), "more or less than the mean of its twins"),
        (energy_blocks(cut=1.2), "a cancelled request is charged nothing, or more"),
        (energy_blocks(cut=0.2), "does not pay what one of its length pays"),
        ([], "int8_over_bf16: too little is known"),
    ],
)
def test_energy_figures_that_are_out_of_bounds_are_told(blocks: list[Charged], said: str) -> None:
    assert any(said in wrong for wrong in wrong_figures(figures(blocks)))


def test_a_cancelled_request_counts_the_tokens_that_its_client_took() -> None:
    asks = {name: Ask(model="m", prompt=[1], max_tokens=9, group="g", leave_after=4) for name in ("a", "b")}
    asks["b"] = Ask(model="m", prompt=[1], max_tokens=9, group="g")
    row = {"joules": "1.5", "decode_joules": "1.0", "output_tokens": "", "method": "token_share", "confidence": "0.3"}
    known = charged(asks, [{**row, "id": name} for name in ("a", "b", "stranger")])
    assert [(one.tokens, one.joules) for one in known] == [(4, 1.5)]
    assert methods(known) == {"token_share": 1.0}
