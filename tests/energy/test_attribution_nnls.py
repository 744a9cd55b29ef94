"""Least squares without negative coefficients: the conditions that only the best solution meets."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.energy.attribution.nnls import fit, robust_fit


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(1, 40))
def test_no_step_that_is_allowed_makes_the_fit_better(seed: int, terms: int, count: int) -> None:
    random = np.random.default_rng(seed)
    rows, values = random.normal(size=(count, terms)), random.normal(size=count)
    solution = fit(rows, values)
    slope = rows.T @ (values - rows @ solution)
    assert (solution >= 0.0).all()
    assert (slope <= 1e-4 * max(1.0, np.abs(rows.T @ values).max())).all()
    assert np.abs(slope[solution > 1e-9]).max(initial=0.0) <= 1e-4 * max(1.0, np.abs(rows.T @ values).max())


def test_what_is_exact_is_found_exactly() -> None:
    rows = np.random.default_rng(1).uniform(size=(50, 4)) * [1.0, 30.0, 1e4, 1.0]
    truth = np.array([0.012, 2e-5, 1e-7, 0.0])
    assert fit(rows, rows @ truth) == pytest.approx(truth, rel=1e-5, abs=1e-9)


def test_columns_of_zeros_get_zero_and_nothing_at_all_gets_nothing() -> None:
    assert fit(np.zeros((3, 2)), np.ones(3)).tolist() == [0.0, 0.0]
    assert fit(np.zeros((0, 2)), np.zeros(0)).tolist() == [0.0, 0.0]


def test_outliers_do_not_move_the_robust_fit() -> None:
    random = np.random.default_rng(2)
    rows = np.column_stack([np.ones(200), random.uniform(size=200)])
    values = rows @ [1.0, 2.0] + random.normal(0.0, 0.01, 200)
    values[::20] += 5.0
    solution, kept = robust_fit(rows, values)
    assert solution == pytest.approx([1.0, 2.0], abs=0.02)
    assert not kept[::20].any()


def test_anchor_decides_where_rows_do_not() -> None:
    rows, values = np.ones((50, 2)), np.full(50, 3.0)
    solution, _ = robust_fit(rows, values, np.array([[0.0, 0.1]]))
    assert solution == pytest.approx([3.0, 0.0], abs=1e-3)
