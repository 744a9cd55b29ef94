"""The sums of a checkpoint beside its reference, offline, with torch.

Memory: both models in float32, the logits (window, vocabulary) of one window of each, and a few rows of them in
float64. Windows are read one by one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import torch

from quant.quality.counts import FIELDS, row

__all__ = ["paired_rows", "window_row"]

_ROWS: Final = 64  # positions compared at once, in float64


def paired_rows(
    reference: Any, variant: Any, windows: Sequence[Sequence[int]], *, top_k: int
) -> Iterator[tuple[list[float], list[float]]]:
    """Of every window the variant's sums, and those of the reference computed once more: the noise floor.

    Models map ids (1, length) to logits.
    """
    for window in windows:
        ids = torch.tensor(window)
        with torch.inference_mode():
            theirs, again, mine = (_logits(model, ids) for model in (reference, reference, variant))
            found = window_row(theirs, mine, ids[1:], top_k=top_k)
            noise = _nothing_lost(found) if again.equal(theirs) else window_row(theirs, again, ids[1:], top_k=top_k)
        yield found, noise


def window_row(reference: torch.Tensor, variant: torch.Tensor, targets: torch.Tensor, *, top_k: int) -> list[float]:
    """The sums over logits (tokens, vocabulary) that predict `targets` (tokens,)."""
    parts = [
        _part(*some, top_k)
        for some in zip(reference.split(_ROWS), variant.split(_ROWS), targets.split(_ROWS), strict=True)
    ]
    sums = torch.stack(parts).sum(dim=0).tolist()
    names = ("reference_nll", "variant_nll", "kl", "kl_top", "agreed", "right_to_wrong", "wrong_to_right")
    return row(tokens=float(len(targets)), **dict(zip(names, sums, strict=True)))


def _nothing_lost(found: Sequence[float]) -> list[float]:
    """The sums of a reference that came out the same, bit by bit."""
    tokens, nll = (found[FIELDS.index(field)] for field in ("tokens", "reference_nll"))
    nothing = dict.fromkeys(("kl", "kl_top", "right_to_wrong", "wrong_to_right"), 0.0)
    return row(tokens=tokens, reference_nll=nll, variant_nll=nll, agreed=tokens, **nothing)


def _logits(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """(length - 1, vocabulary): what predicts every token but the first."""
    logits: torch.Tensor = model(input_ids=ids.unsqueeze(0), use_cache=False).logits[0, :-1]
    return logits


def _part(reference: torch.Tensor, variant: torch.Tensor, targets: torch.Tensor, top_k: int) -> torch.Tensor:
    log_p, log_q = (logits.double().log_softmax(dim=-1) for logits in (reference, variant))
    p = log_p.exp()
    right_p, right_q = (found.argmax(dim=-1) == targets for found in (reference, variant))
    place = targets.unsqueeze(-1)
    return torch.stack(
        [
            -log_p.gather(-1, place).sum(),
            -log_q.gather(-1, place).sum(),
            (p * (log_p - log_q)).sum(),
            _truncated(log_p, log_q, place, top_k),
            (reference.argmax(dim=-1) == variant.argmax(dim=-1)).sum().double(),
            (right_p & ~right_q).sum().double(),
            (~right_p & right_q).sum().double(),
        ]
    )


def _truncated(log_p: torch.Tensor, log_q: torch.Tensor, place: torch.Tensor, top_k: int) -> torch.Tensor:
    """What `served.py` can tell of KL: over the tokens in both top K, the text's own, and one rest."""
    k = min(top_k, log_p.shape[-1])
    p_has, q_has = (
        torch.zeros_like(logs, dtype=torch.bool).scatter_(-1, logs.topk(k).indices, value=True)
        for logs in (log_p, log_q)
    )
    both = (p_has & q_has).scatter_(-1, place, value=True)
    inside = torch.where(both, log_p.exp() * (log_p - log_q), 0.0).sum()
    p_rest, q_rest = (torch.where(both, 0.0, logs.exp()).sum(dim=-1) for logs in (log_p, log_q))
    tiny = torch.finfo(torch.float64).tiny
    rest = p_rest * (p_rest.clamp_min(tiny) / q_rest.clamp_min(tiny)).log()
    return inside + rest.sum()
