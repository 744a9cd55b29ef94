"""Losses through running engines: what they tell, and what is left out."""

from __future__ import annotations

import itertools
import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quant.quality.bootstrap import Bootstrap
from quant.quality.counts import FIELDS
from quant.quality.scores import Measured, scores
from quant.quality.through_engine import served_rows, window_row
from quant.served import Endpoint, Ranked
from tests.fakes.ranking_engine import RankingEngine

Table = npt.NDArray[np.float64]
VOCABULARY = 24
MEASURED = Measured(
    dataset="text", text_sha256="0", path="served", reference="base", window=64, top_k=20, measured_at="2026-11-21"
)


def table(seed: int, spread: float = 1.0) -> Table:
    """Random log-probabilities of the next token, by the one before."""
    logits = np.random.default_rng(seed).normal(scale=spread, size=(VOCABULARY, VOCABULARY))
    return normalised(logits)


def normalised(logits: Table) -> Table:
    found: Table = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return found


def windows(count: int) -> list[list[int]]:
    tokens = np.random.default_rng(1).integers(0, VOCABULARY, size=(count, 64))
    return [[int(token) for token in window] for window in tokens]


def sums(reference: Table, variant: Table, top_k: int) -> tuple[dict[str, float], dict[str, float]]:
    """Of three windows: the variant's, and the reference's against itself."""
    with RankingEngine(reference) as base, RankingEngine(variant) as other:
        endpoints = (Endpoint(url=engine.url, model="m") for engine in (base, other))
        rows = np.array(list(served_rows(*endpoints, windows(3), top_k=top_k))).sum(axis=0)
    mine, itself = (dict(zip(FIELDS, map(float, row), strict=True)) for row in rows)
    return mine, itself


def exact_kl(reference: Table, variant: Table) -> float:
    """Summed over the same three windows."""
    by_token = (np.exp(reference) * (reference - variant)).sum(axis=1)
    return float(sum(by_token[token] for window in windows(3) for token in window[:-1]))


def test_sums_are_those_of_the_tables() -> None:
    reference, variant = table(1), normalised(table(1) + 0.3 * table(2))  # alike, so that some tops agree
    mine, _ = sums(reference, variant, 20)
    pairs = [pair for window in windows(3) for pair in itertools.pairwise(window)]
    assert mine["tokens"] == len(pairs) == 189
    assert mine["variant_nll"] == pytest.approx(-sum(variant[pair] for pair in pairs))
    right = [(reference[a].argmax() == b, variant[a].argmax() == b) for a, b in pairs]
    assert mine["right_to_wrong"] == right.count((True, False))
    assert mine["wrong_to_right"] == right.count((False, True))
    assert mine["agreed"] == sum(reference[a].argmax() == variant[a].argmax() for a, _ in pairs)
    assert math.isnan(mine["kl"])


def test_truncated_divergence_grows_with_k_up_to_the_exact_one() -> None:
    reference, variant = table(1), table(2)
    found = [sums(reference, variant, top_k)[0]["kl_top"] for top_k in (1, 5, 20, VOCABULARY)]
    assert found == sorted(found)
    assert 0 < found[0] < found[-1] == pytest.approx(exact_kl(reference, variant))


def test_reference_against_itself_loses_nothing() -> None:
    _, itself = sums(table(1), table(2), 5)
    assert itself["kl_top"] == pytest.approx(0, abs=1e-9)
    assert itself["agreed"] == itself["tokens"]
    assert itself["right_to_wrong"] == itself["wrong_to_right"] == 0


@given(st.integers(0, 10_000), st.integers(1, VOCABULARY), st.floats(0.1, 5))
def test_truncation_never_says_more_than_there_is(seed: int, top_k: int, spread: float) -> None:
    p, q = table(seed, spread)[0], table(seed + 1, spread)[0]
    ranked = [_ranked(logprobs, top_k) for logprobs in (p, q)]
    found = dict(zip(FIELDS, window_row([ranked[0]], [ranked[1]], [0]), strict=True))["kl_top"]
    assert -1e-9 <= found <= float((np.exp(p) * (p - q)).sum()) + 1e-9


def test_scores_through_engines_have_intervals_and_noise_and_no_exact_divergence() -> None:
    with RankingEngine(table(1)) as base, RankingEngine(table(2)) as other:
        rows = served_rows(Endpoint(url=base.url, model="m"), Endpoint(url=other.url, model="m"), windows(12), top_k=20)
        found = {score["metric"]: score for score in scores(rows, MEASURED, Bootstrap(resamples=500))}
    assert "kl_nats" not in found
    for metric, score in found.items():
        assert score["interval"][0] <= score["value"] <= score["interval"][1], metric
        assert (score["path"], score["windows"], score["tokens"]) == ("served", 12, 12 * 63)
    assert found["kl_top20_nats"]["noise"] == pytest.approx(0, abs=1e-9)
    assert found["top1_agreement_ratio"]["noise"] == 1


def _ranked(logprobs: npt.NDArray[np.float64], top_k: int) -> Ranked:
    """As an engine tells it; the text's token is 0."""
    order = [int(token) for token in np.argsort(-logprobs)]
    told = {0, *order[:top_k]}
    return Ranked(top=order[0], logprobs={token: float(logprobs[token]) for token in told})
