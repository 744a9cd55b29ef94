"""A change of a weight matrix as B · A, by PEFT or by singular values.

The best B (N, r) · A (r, K) of a given rank, in the Frobenius norm, is U·S cut after r singular values times Vᵀ.
Source: Eckart and Young, Psychometrika 1, 1936.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from peft import convert_to_lora
from peft.tuners.tuners_utils import BaseTunerLayer

from quant.errors import SourceError
from server.models.adapter import LORA_KINDS

__all__ = ["Factors", "Limit", "by_peft", "by_singular_values"]

_A: Final = ".lora_A.weight"
_B: Final = ".lora_B.weight"
_PEFT_PREFIX: Final = "base_model.model."


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """How close the LoRA has to come: by rank, or by error."""

    rank: int | None
    """Of every layer; None: the smallest that keeps `error`."""
    error: float
    """‖ΔW - B·A‖ / ‖ΔW‖ of every layer, where `rank` is None."""

    @property
    def energy(self) -> float:
        """The share of the squared singular values to keep."""
        return 1 - self.error**2


@dataclass(frozen=True, slots=True, kw_only=True)
class Factors:
    """One layer's LoRA with scale 1."""

    a: torch.Tensor  # (r, K)
    b: torch.Tensor  # (N, r)

    @property
    def product(self) -> torch.Tensor:
        """ΔW (N, K), float32."""
        return self.b.float() @ self.a.float()


def by_peft(model: Any, kind: str, limit: Limit) -> dict[str, Factors] | None:
    """What PEFT's own conversion gives, by layer; None where it has none.

    LoRA's own variants are left out: PEFT takes B·A alone, without DoRA's lengths and without what PiSSA took out of
    the base.
    """
    layers = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
    if kind in LORA_KINDS or not layers or not all(layer.supports_lora_conversion() for layer in layers):
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _, tensors = convert_to_lora(model, rank=limit.energy if limit.rank is None else limit.rank)
    except (TypeError, ValueError) as exc:
        raise SourceError(f"PEFT cannot convert this adapter: {exc} Choose another --rank, or merge it.") from exc
    names = [name.removesuffix(_A) for name in tensors if name.endswith(_A)]
    return {name.removeprefix(_PEFT_PREFIX): Factors(a=tensors[name + _A], b=tensors[name + _B]) for name in names}


def by_singular_values(changes: Mapping[str, torch.Tensor], limit: Limit) -> dict[str, Factors]:
    """The closest B·A of every ΔW (N, K)."""
    return {name: _closest(change, limit) for name, change in changes.items()}


def _closest(change: torch.Tensor, limit: Limit) -> Factors:
    u, s, v = torch.linalg.svd(change.double(), full_matrices=False)  # the energy to keep is near 1
    rank = min(limit.rank or _rank(s, limit.energy), len(s))
    return Factors(a=v[:rank].float().contiguous(), b=(u[:, :rank] * s[:rank]).float().contiguous())


def _rank(values: torch.Tensor, energy: float) -> int:
    kept = torch.cumsum(values**2, dim=0)
    return int(torch.searchsorted(kept, energy * kept[-1])) + 1
