"""The steps of a training: equal seeds give equal weights on an equal machine."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from typing import Any, Final

import torch
from torch.nn.functional import cross_entropy

from quant.errors import SchemeError
from quant.tune.examples import IGNORED, Example
from quant.tune.gauges import Gauges
from quant.tune.methods import Trainee
from quant.tune.settings import Settings

__all__ = ["fit", "held_out_loss"]

_WARM_UP: Final = 0.1  # share of the steps over which the learning rate rises
_LARGEST_GRADIENT: Final = 1.0
_JUDGED_ROWS: Final = 16


def fit(
    trainee: Trainee, examples: Sequence[Example], settings: Settings, gauges: Gauges, *, rate: float, pad: int
) -> Iterator[float]:
    """Train; yields each step's loss in nats a learned token. Raises `SchemeError` if it diverges."""
    groups = [{"params": group["params"], "lr": rate, "peak": rate * group["factor"]} for group in trainee.groups]
    values = [value for group in groups for value in group["params"]]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.0)
    trainee.model.train()
    for step, rows in enumerate(_batches(examples, settings)):
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * _factor(step, settings.steps)
        loss = _loss(trainee.model, rows, pad)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(values, _LARGEST_GRADIENT)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        found = loss.item()
        gauges.step(samples=len(rows), tokens=_learned(rows))
        if not math.isfinite(found):
            raise SchemeError(f"The training diverged in step {step + 1}: the loss is {found}. Give a lower --rate.")
        yield found


def held_out_loss(model: Any, examples: Sequence[Example], pad: int) -> float | None:
    """Nats a learned token; None without examples."""
    if not examples:
        return None
    model.eval()
    parts = [examples[start : start + _JUDGED_ROWS] for start in range(0, len(examples), _JUDGED_ROWS)]
    with torch.inference_mode():
        total = math.fsum(_loss(model, rows, pad).item() * _learned(rows) for rows in parts)
    return total / sum(_learned(rows) for rows in parts)


def _batches(examples: Sequence[Example], settings: Settings) -> Iterator[list[Example]]:
    """`settings.steps` batches: every example once before any comes again, in a new order each time."""
    chance = random.Random(settings.seed)  # noqa: S311 - a fixed seed, no secret
    waiting: list[Example] = []
    for _ in range(settings.steps):
        while len(waiting) < settings.rows:
            waiting += chance.sample(list(examples), len(examples))
        yield waiting[: settings.rows]
        waiting = waiting[settings.rows :]


def _factor(step: int, steps: int) -> float:
    """Of the peak learning rate: linear up, then linear down to 0."""
    return min((step + 1) / max(_WARM_UP * steps, 1.0), 1.0) * (1 - step / steps)


def _loss(model: Any, rows: Sequence[Example], pad: int) -> torch.Tensor:
    """Mean cross entropy over the learned tokens of `rows`; padding at the end needs no mask in a causal model."""
    device = next(model.parameters()).device
    ids = _padded([row.ids for row in rows], pad).to(device)
    targets = _padded([row.targets for row in rows], IGNORED).to(device)
    with torch.autocast(device.type, torch.bfloat16):
        logits = model(input_ids=ids[:, :-1], use_cache=False).logits
    return cross_entropy(logits.float().flatten(0, 1), targets[:, 1:].flatten())


def _learned(rows: Sequence[Example]) -> int:
    return sum(target != IGNORED for row in rows for target in row.targets[1:])


def _padded(rows: Sequence[Sequence[int]], value: int) -> torch.Tensor:
    """(rows, longest) int64."""
    longest = max(len(row) for row in rows)
    return torch.tensor([[*row, *[value] * (longest - len(row))] for row in rows])
