"""Ratios, intervals and decisions of a comparison, against tables and by simulation."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen._compare._design import Level, block_of, twin_of
from loadgen._compare._statistics import Outcome, blocks_needed, estimate, holm, outcome_of, worse_than
from loadgen._compare._student import t_cdf, t_quantile

CONFIDENCE = 0.95
MARGIN = 0.05

# Critical values as printed in the NIST/SEMATECH e-Handbook of Statistical Methods, 1.3.6.7.2.
TABLE = [
    (1, 0.90, 3.078), (1, 0.95, 6.314), (1, 0.975, 12.706), (1, 0.99, 31.821), (1, 0.995, 63.657),
    (2, 0.975, 4.303), (3, 0.975, 3.182), (4, 0.975, 2.776), (5, 0.975, 2.571), (5, 0.999, 5.893),
    (7, 0.95, 1.895), (7, 0.975, 2.365), (7, 0.995, 3.499), (9, 0.975, 2.262), (10, 0.90, 1.372),
    (15, 0.975, 2.131), (20, 0.99, 2.528), (30, 0.975, 2.042), (60, 0.975, 2.000), (100, 0.995, 2.626),
]  # fmt: skip


@pytest.mark.parametrize(("degrees", "probability", "printed"), TABLE)
def test_quantiles_of_t_are_those_of_the_printed_table(degrees: int, probability: float, printed: float) -> None:
    assert t_quantile(probability, degrees) == pytest.approx(printed, abs=5.1e-4)


@given(st.floats(-30, 30), st.floats(1, 400))
def test_the_distribution_of_t_is_symmetric_and_its_quantile_is_its_inverse(t: float, degrees: float) -> None:
    share = t_cdf(t, degrees)
    assert share + t_cdf(-t, degrees) == pytest.approx(1, abs=1e-12)
    if 1e-6 < share < 1 - 1e-6:
        assert t_quantile(share, degrees) == pytest.approx(t, abs=1e-6, rel=1e-6)


def test_one_degree_of_freedom_is_the_cauchy_distribution() -> None:
    for t in (-5.0, -1.0, 0.0, 0.5, 3.0):
        assert t_cdf(t, 1) == pytest.approx(0.5 + math.atan(t) / math.pi, abs=1e-13)


def test_an_interval_by_hand() -> None:
    """Mean 0.1, standard deviation sqrt(0.02/3): half width t(3; 0.975) · s/2 = 3.18245 · 0.0408248."""
    found = estimate([0.0, 0.1, 0.2, 0.1], first=4, confidence=CONFIDENCE, margin=MARGIN)
    assert found is not None
    assert found.ratio == pytest.approx(math.exp(0.1))
    assert found.half_width == pytest.approx(3.182446 * math.sqrt(0.02 / 3) / 2, rel=1e-6)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_never_makes_a_p_value_smaller_nor_larger_than_bonferroni(values: Sequence[float]) -> None:
    for before, after in zip(values, holm(values), strict=True):
        assert before <= after <= min(1.0, len(values) * before) + 1e-12


def test_fewer_than_three_pairs_say_nothing() -> None:
    assert estimate([0.1, 0.1], first=8, confidence=CONFIDENCE, margin=MARGIN) is None


def test_figures_that_never_vary_are_known_for_certain() -> None:
    same = estimate([0.0] * 8, first=8, confidence=CONFIDENCE, margin=MARGIN)
    other = estimate([0.5] * 8, first=8, confidence=CONFIDENCE, margin=MARGIN)
    assert same is not None
    assert other is not None
    assert _outcome(same.p_differs, same.p_equivalent) is Outcome.EQUIVALENT
    assert _outcome(other.p_differs, other.p_equivalent) is Outcome.DIFFERS


def test_the_interval_agrees_with_the_decisions_where_one_metric_is_the_whole_family() -> None:
    rng = np.random.default_rng(3)
    for _ in range(300):
        found = estimate(
            list(rng.normal(rng.uniform(-0.1, 0.1), 0.05, 8)), first=8, confidence=CONFIDENCE, margin=MARGIN
        )
        assert found is not None
        assert (found.p_differs < 0.05) == (not found.low <= 1 <= found.high)


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    """3,000 draws: 95 % ± 1.2 % is three standard errors."""
    rng = np.random.default_rng(11)
    truth, draws = math.log(2.1), 3000
    hits = 0
    for _ in range(draws):
        found = estimate(list(rng.normal(truth, 0.08, 8)), first=8, confidence=CONFIDENCE, margin=MARGIN)
        assert found is not None
        hits += found.low <= 2.1 <= found.high
    assert 0.938 <= hits / draws <= 0.962


def test_stopping_by_the_spread_of_the_first_blocks_does_not_spoil_the_coverage() -> None:
    rng = np.random.default_rng(12)
    truth, draws, target = 0.1, 2000, 0.03
    hits, narrow = 0, 0
    for _ in range(draws):
        first = list(rng.normal(truth, 0.05, 8))
        blocks = blocks_needed(first, target=target, confidence=CONFIDENCE)
        logs = first + list(rng.normal(truth, 0.05, blocks - 8))
        found = estimate(logs, first=8, confidence=CONFIDENCE, margin=MARGIN)
        assert found is not None
        hits += found.low <= math.exp(truth) <= found.high
        narrow += found.half_width <= target * 1.0001
    assert hits / draws >= 0.935  # 95 % less three standard errors
    assert narrow / draws >= 0.5  # wider where later blocks scattered more than the first


def test_of_a_whole_family_of_equal_metrics_rarely_one_is_called_different() -> None:
    """A/A: seven correlated metrics, 800 comparisons; at most 5 % may raise a false alarm (+ 2 %: 2.5 errors)."""
    rng = np.random.default_rng(13)
    alarms, draws = 0, 800
    for _ in range(draws):
        shared = rng.normal(0, 0.06, 8)
        found = [
            estimate(list(shared + rng.normal(0, 0.06, 8)), first=8, confidence=CONFIDENCE, margin=MARGIN)
            for _ in range(7)
        ]
        differs = holm([one.p_differs for one in found if one])
        equal = holm([one.p_equivalent for one in found if one])
        alarms += any(_outcome(p, q) is Outcome.DIFFERS for p, q in zip(differs, equal, strict=True))
    assert alarms / draws <= 0.07


def test_what_lies_at_the_margin_is_rarely_called_equivalent() -> None:
    """The test's own error: a true ratio of exactly 1 + margin passes in at most 5 % of 2,000 (+ 1.2 %)."""
    rng = np.random.default_rng(14)
    passed, draws = 0, 2000
    for _ in range(draws):
        found = estimate(list(rng.normal(math.log1p(MARGIN), 0.02, 8)), first=8, confidence=CONFIDENCE, margin=MARGIN)
        assert found is not None
        passed += found.p_equivalent < 0.05
    assert passed / draws <= 0.062


def test_a_regression_beyond_the_margin_is_seen_and_one_within_is_not() -> None:
    rng = np.random.default_rng(15)
    before = list(rng.normal(0, 0.02, 8))
    worse = worse_than(list(rng.normal(0.3, 0.02, 8)), before, confidence=CONFIDENCE, margin=MARGIN)
    same = worse_than(list(rng.normal(0.02, 0.02, 8)), before, confidence=CONFIDENCE, margin=MARGIN)
    better = worse_than(list(rng.normal(-0.3, 0.02, 8)), before, confidence=CONFIDENCE, margin=MARGIN)
    assert worse is not None
    assert same is not None
    assert better is not None
    assert worse.p < 0.001
    assert worse.ratio == pytest.approx(math.exp(0.3), rel=0.03)
    assert worse.low > 1.2
    assert same.p > 0.5
    assert better.p > 0.999


def test_a_shift_of_just_the_margin_is_rarely_called_a_regression() -> None:
    rng = np.random.default_rng(16)
    alarms, draws = 0, 800
    for _ in range(draws):
        now, before = rng.normal(math.log1p(MARGIN), 0.03, 8), rng.normal(0, 0.03, 8)
        found = worse_than(list(now), list(before), confidence=CONFIDENCE, margin=MARGIN)
        assert found is not None
        alarms += found.p < 0.05
    assert alarms / draws <= 0.07


@given(st.integers(0, 1000), st.integers(1, 20), st.booleans())
def test_a_block_runs_everything_once_and_the_reference_twice(seed: int, block: int, restarts: bool) -> None:
    names, levels = ["a", "b", "c"], [Level(loop="closed", value=8.0), Level(loop="open", value=2.5)]
    runs = block_of(block, configurations=names, levels=levels, seed=seed, restarts=restarts)
    assert sorted((run.configuration, run.level.slug) for run in runs) == sorted(
        itertools.product([*names, twin_of("a")], [level.slug for level in levels])
    )
    assert runs == block_of(block, configurations=names, levels=levels, seed=seed, restarts=restarts)
    assert len({run.key for run in runs}) == len(runs)


def test_every_configuration_comes_first_about_as_often() -> None:
    levels = [Level(loop="closed", value=8.0)]
    firsts = [
        block_of(block, configurations=["a", "b"], levels=levels, seed=1, restarts=False)[0].configuration
        for block in range(1, 601)
    ]
    for name in ("a", "b", twin_of("a")):
        assert 150 < firsts.count(name) < 250


def test_where_engines_are_started_anew_a_configuration_runs_all_its_levels_at_once() -> None:
    levels = [Level(loop="open", value=rate) for rate in (1.0, 2.0, 4.0)]
    runs = block_of(1, configurations=["a", "b"], levels=levels, seed=1, restarts=True)
    changes = sum(one.configuration != other.configuration for one, other in itertools.pairwise(runs))
    assert changes == 2


def _outcome(p_differs: float, p_equivalent: float) -> Outcome:
    return outcome_of(p_differs=p_differs, p_equivalent=p_equivalent, confidence=CONFIDENCE)
