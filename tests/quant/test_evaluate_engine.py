"""Losses of the demo model's variants: offline with torch, and through real engines behind the gateway."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.integration.fleet import Fleet
from tests.quant.conftest import Quant, Script

SHORT_TEXT_BYTES = 9_000
WINDOW = 128

WINDOW_ROW = """
import torch
from quant.quality.offline import window_row
torch.manual_seed(0)
p, q = torch.randn(100, 50), torch.randn(100, 50)
targets = torch.randint(50, (100,))
result = [window_row(p, q, targets, top_k=k) for k in (1, 10, 50)] + [window_row(p, p, targets, top_k=10)]
exact = torch.nn.functional.kl_div(q.log_softmax(-1), p.log_softmax(-1), log_target=True, reduction="sum")
loss = torch.nn.functional.cross_entropy(q, targets, reduction="sum")
result = [result, exact.item(), loss.item()]
"""


def measured(quant: Quant, text: Path, *arguments: object) -> dict[str, Any]:
    done = quant("evaluate", *arguments, "--text", text, "--window", WINDOW, "--json", "--no-store")
    assert done.returncode == 0, done.stderr
    return {score["metric"]: score for score in json.loads(done.stdout)["scores"]}


@pytest.fixture
def short_text(root: Path, tmp_path: Path) -> Path:
    path = tmp_path / "short.txt"
    path.write_bytes((root / "quant" / "demo" / "heldout.txt").read_bytes()[:SHORT_TEXT_BYTES])
    return path


@pytest.mark.engine_env
def test_sums_of_a_window_are_those_of_torch(script: Script) -> None:
    (one, ten, all_of_them, itself), exact, loss = script(WINDOW_ROW)
    tokens, _, variant_nll, divergence, truncated, *_ = ten
    assert (tokens, variant_nll, divergence) == pytest.approx((100, loss, exact), rel=1e-5)
    assert 0 <= one[4] <= truncated <= all_of_them[4] == pytest.approx(exact, rel=1e-5)
    assert itself[3:] == [0.0, 0.0, 100.0, 0.0, 0.0]


@pytest.mark.engine_env
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("scheme", "most"), [("w8a8-int8", 0.02), ("w4a16", 0.2), ("fp8-dynamic", 0.05)])
def test_every_loss_of_a_variant_has_an_interval_and_the_reference_loses_nothing(
    quant: Quant, root: Path, tmp_path: Path, short_text: Path, scheme: str, most: float
) -> None:
    base, variant = root / "models" / "demo", tmp_path / scheme
    done = quant("rtn", base, variant, "--scheme", scheme)
    assert done.returncode == 0, done.stderr
    found = measured(quant, short_text, variant, "--reference", base)
    assert len(found) == 10
    for metric, score in found.items():
        assert score["interval"][0] <= score["value"] <= score["interval"][1], metric
        assert score.get("noise") in {None, 1.0 if metric in {"perplexity_ratio", "top1_agreement_ratio"} else 0.0}
    assert 0 < found["kl_top20_nats"]["value"] <= found["kl_nats"]["value"] < most
    assert 0.99 - 5 * most < found["top1_agreement_ratio"]["value"] < 1


@pytest.mark.fleet
@pytest.mark.timeout(600)
def test_engines_behind_the_gateway_and_torch_agree(quant: Quant, fleet: Fleet, root: Path, short_text: Path) -> None:
    """On means; single tokens feel the engine's kernels: 0.004 nats of KL, 0.035 of agreement (docs/quality.md)."""
    base, variant = root / "models" / "demo", root / "variants" / "demo-int8"
    offline = measured(quant, short_text, variant, "--reference", base)
    names = ("--model", "demo:int8", "--reference-model", "demo:bf16")
    served = measured(quant, short_text, variant, "--reference", base, "--url", fleet.gateway, *names)
    assert "kl_nats" not in served
    assert served["perplexity"]["value"] == pytest.approx(offline["perplexity"]["value"], rel=0.01)
    low, high = served["perplexity_ratio"]["interval"]
    assert low <= offline["perplexity_ratio"]["value"] <= high
    assert served["kl_top20_nats"]["value"] == pytest.approx(offline["kl_top20_nats"]["value"], abs=0.015)
    agreement = offline["top1_agreement_ratio"]["value"]
    assert served["top1_agreement_ratio"]["value"] == pytest.approx(agreement, abs=0.08)
    assert served["kl_top20_nats"]["noise"] == pytest.approx(0, abs=0.005)
