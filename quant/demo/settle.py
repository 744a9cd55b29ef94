"""Prepare the trained demo model for rounding: a short training with weights rounded to int4.

Every projection computes with W4A16(group 128) of its weight while the gradient goes to the weight itself (the
straight-through estimator, arXiv 1308.3432). Afterwards plain rounding to nearest costs little; before, it cost 3 % of
perplexity half-way through the training.
"""

from __future__ import annotations

import json
import random
import time
from pathlib import Path
from typing import Final

import torch
from torch import nn
from torch.nn.utils.parametrize import register_parametrization, remove_parametrizations
from transformers import AutoTokenizer, LlamaForCausalLM

from quant.demo.corpus import read_corpus
from quant.demo.train import Plan, learn, optimizers_for, save_model
from quant.methods.w4a16 import W4A16

__all__ = ["settle"]

_SEED: Final = 20_14
_STEPS: Final = 150
_RATE: Final = 0.12  # of the peak learning rates, falling to 0


def settle(folder: Path) -> None:
    """Train the model in `folder` on, in place. Two to three minutes."""
    began = time.monotonic()
    torch.manual_seed(_SEED)
    corpus = read_corpus(AutoTokenizer.from_pretrained(folder))
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    layers = [module for name, module in model.named_modules() if isinstance(module, nn.Linear) and name != "lm_head"]
    for layer in layers:
        register_parametrization(layer, "weight", _Rounded())
    plan = Plan()
    chance = random.Random(_SEED)  # noqa: S311 - a fixed seed, no secret
    rates = [_RATE * (1 - step / _STEPS) for step in range(_STEPS)]
    late = range(plan.steps - _STEPS, plan.steps)  # with the lengths and the share of dialogues of the end
    losses = list(learn(model, optimizers_for(model, plan), corpus, plan, zip(late, rates, strict=True), chance))
    for layer in layers:
        remove_parametrizations(layer, "weight", leave_parametrized=False)
    save_model(model, folder)
    facts = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    facts["settling"] = {
        "steps": _STEPS,
        "seconds": round(time.monotonic() - began),
        "loss": round(sum(losses[-30:]) / 30, 3),
    }
    (folder / "training.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


class _Rounded(nn.Module):  # type: ignore[misc, unused-ignore]  # torch is untyped without torch
    """Weight (N, K) → its int4 image, with the gradient of the identity."""

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        method = W4A16(search=True)
        with torch.no_grad():
            step = method.dequantize(method.quantize(weight)) - weight
        return weight + step
