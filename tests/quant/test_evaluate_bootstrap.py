"""Intervals by drawing windows again, and the figures they stand beside."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quant.quality.bootstrap import LEAST_WINDOWS, Bootstrap
from quant.quality.counts import ALL, Floats, Sums, figures, row

FEW = Bootstrap(resamples=1000)
MEAN = next(figure for figure in ALL if figure.metric == "kl_nats")


def windows(values: Floats, tokens: float = 100.0) -> Sums:
    """Windows whose KL sums are `values`."""
    return np.array([row(tokens=tokens, kl=value) for value in values])


def figure(metric: str, **sums: float) -> float:
    found = {figure.metric: figure for figure in figures(20)}[metric]
    return float(found.of(np.array(row(**sums))))


def test_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    """Of skewed windows, as KL's are: 95 % nominal; with 30 windows BCa reaches 91 to 95."""
    random = np.random.default_rng(7)
    covered, rounds = 0, 300
    for _ in range(rounds):
        interval = FEW.interval(windows(random.gamma(2.0, 0.5, size=30)), MEAN.of)
        assert interval is not None
        covered += interval[0] <= 2.0 * 0.5 / 100 <= interval[1]
    assert 0.89 <= covered / rounds <= 0.98


def test_same_sums_and_seed_give_the_same_interval_and_another_seed_nearly_the_same() -> None:
    sums = windows(np.random.default_rng(0).gamma(2.0, 0.5, size=40))
    first, again, other = (Bootstrap(seed=seed).interval(sums, MEAN.of) for seed in (1, 1, 2))
    assert first == again != other
    assert other == pytest.approx(first, rel=0.02)


def test_more_windows_give_a_narrower_interval() -> None:
    values = np.random.default_rng(0).gamma(2.0, 0.5, size=400)
    widths = []
    for count in (25, 400):
        interval = FEW.interval(windows(values[:count]), MEAN.of)
        assert interval is not None
        widths.append(interval[1] - interval[0])
    assert widths[1] < widths[0] / 2


def test_windows_that_are_all_alike_leave_nothing_open() -> None:
    assert FEW.interval(windows(np.full(10, 3.0)), MEAN.of) == pytest.approx((0.03, 0.03))


def test_few_windows_give_no_interval_instead_of_a_wrong_one() -> None:
    assert FEW.interval(windows(np.arange(LEAST_WINDOWS - 1.0)), MEAN.of) is None
    assert FEW.interval(windows(np.arange(float(LEAST_WINDOWS))), MEAN.of) is not None


@given(st.lists(st.floats(0, 1e6), min_size=LEAST_WINDOWS, max_size=20))
def test_interval_is_finite_ordered_and_within_what_windows_can_give(values: list[float]) -> None:
    interval = Bootstrap(resamples=200).interval(windows(np.array(values)), MEAN.of)
    assert interval is not None
    low, high = interval
    assert min(values) / 100 * (1 - 1e-9) <= low <= high <= max(values) / 100 * (1 + 1e-9)


def test_figures_follow_from_the_sums() -> None:
    sums = {"tokens": 10.0, "reference_nll": 20.0, "variant_nll": 21.0, "kl": 0.5, "kl_top": 0.4, "agreed": 8.0}
    sums |= {"right_to_wrong": 2.0, "wrong_to_right": 1.0}
    assert figure("perplexity", **sums) == pytest.approx(np.exp(2.1))
    assert figure("perplexity_ratio", **sums) == pytest.approx(np.exp(0.1))
    assert figure("nll_change_nats", **sums) == pytest.approx(0.1)
    assert figure("kl_nats", **sums) == pytest.approx(0.05)
    assert figure("kl_top20_nats", **sums) == pytest.approx(0.04)
    assert figure("top1_agreement_ratio", **sums) == pytest.approx(0.8)
    assert figure("flips_ratio", **sums) == pytest.approx(0.3)
    assert figure("net_flips_ratio", **sums) == pytest.approx(0.1)
