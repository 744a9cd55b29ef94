"""What an adapter loses on its way: in the weights, and in the output.

Weights: ‖ΔW - ΔW'‖ / ‖ΔW‖ (Frobenius) a layer. Output: KL(with adapter ‖ on its way) in nats a token over a text, and
beside it KL(with adapter ‖ base): how much the adapter does at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import torch
from torch.nn.functional import kl_div

__all__ = ["OutputLoss", "WeightLoss", "log_probabilities", "output_loss", "weight_loss"]

_DIGITS: Final = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightLoss:
    """Relative Frobenius error by layer; None for a layer that the adapter does not change."""

    by_layer: Mapping[str, float | None]

    @property
    def worst(self) -> tuple[str, float] | None:
        """The layer that loses most."""
        known = [(name, value) for name, value in self.by_layer.items() if value is not None]
        return max(known, key=lambda item: item[1], default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputLoss:
    """Over the tokens of a text."""

    tokens: int
    kl_nats: float
    """KL(with adapter ‖ on its way), mean a token."""
    kl_nats_max: float
    top1_agreement: float
    kl_nats_of_the_adapter: float
    """KL(with adapter ‖ base), mean a token: the effect that the loss is to be seen against."""

    def to_json(self) -> dict[str, float]:
        return {key: round(value, _DIGITS) for key, value in asdict(self).items()}


def weight_loss(wanted: Mapping[str, torch.Tensor], got: Mapping[str, torch.Tensor]) -> WeightLoss:
    """`wanted` and `got`: ΔW (N, K) by layer."""
    return WeightLoss(by_layer={name: _relative(change, got[name]) for name, change in wanted.items()})


def log_probabilities(model: Any, windows: Sequence[Sequence[int]]) -> torch.Tensor:
    """(tokens, vocabulary), float32: of every next token in `windows`, which are all of one length."""
    with torch.inference_mode():
        rows = [model(input_ids=torch.tensor([window]), use_cache=False).logits[0] for window in windows]
    return torch.cat(rows).float().log_softmax(dim=-1)


def output_loss(*, adapted: torch.Tensor, on_its_way: torch.Tensor, base: torch.Tensor) -> OutputLoss:
    """All three as `log_probabilities` gives them."""
    lost = _kl(adapted, on_its_way)
    return OutputLoss(
        tokens=len(adapted),
        kl_nats=lost.mean().item(),
        kl_nats_max=lost.max().item(),
        top1_agreement=(adapted.argmax(-1) == on_its_way.argmax(-1)).float().mean().item(),
        kl_nats_of_the_adapter=_kl(adapted, base).mean().item(),
    )


def _kl(wanted: torch.Tensor, got: torch.Tensor) -> torch.Tensor:
    """KL(wanted ‖ got) by token; a sum of rounding errors below 0 is 0."""
    return kl_div(got, wanted, reduction="none", log_target=True).sum(-1).clamp_min(0)


def _relative(wanted: torch.Tensor, got: torch.Tensor) -> float | None:
    norm = wanted.norm()
    return None if norm == 0 else ((wanted - got).norm() / norm).item()
