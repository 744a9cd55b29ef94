"""Write an adapter's change of the weights as a plain LoRA, and measure what that loses."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import save_file
from torch import nn

from quant.adapters import Way
from quant.adapters.factors import Factors, Limit, by_peft, by_singular_values
from quant.adapters.inspection import inspect_adapter
from quant.adapters.losses import OutputLoss, WeightLoss, log_probabilities, output_loss, weight_loss
from quant.adapters.peft_model import attach, load_base, merged
from quant.errors import SourceError
from quant.evaluate import token_windows
from quant.whole_directory import whole_directory

__all__ = ["Conversion", "convert", "judged_windows"]

_WINDOW: Final = 256
_WINDOWS: Final = 8
"""2,048 tokens: the loss of an adapter shows on few, and every one costs three forward passes."""
_PREFIX: Final = "base_model.model."


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """What became of an adapter."""

    kind: str
    by: str
    """`peft` (its own conversion) or `singular values`."""
    ranks: Mapping[str, int]
    weights: WeightLoss
    output: OutputLoss

    @property
    def rank(self) -> int:
        """The largest: what an engine has to be started for."""
        return max(self.ranks.values())

    def to_json(self) -> dict[str, Any]:
        layers = {name: None if value is None else round(value, 6) for name, value in self.weights.by_layer.items()}
        return {
            "from": self.kind,
            "by": self.by,
            "tools": {name: version(name) for name in ("peft", "torch")},
            "rank": self.rank,
            "weight_error_by_layer": layers,
            "output": self.output.to_json(),
        }


def convert(base: Path, adapter: Path, out: Path, limit: Limit, text: str) -> Conversion:
    """Write `adapter` as a LoRA for `base` into `out`, whole or absent, with `conversion.json` beside it.

    Any adapter that PEFT can merge, and that changes linear layers only, can be converted. Memory: the base three
    times in float32. Raises a `QuantError`.
    """
    inspection = inspect_adapter(adapter, base)
    if inspection.way in {Way.SERVE, Way.REFUSE}:
        raise SourceError(f"{adapter} is not converted: it {inspection.because}. Instead: {inspection.instead}")
    with whole_directory(out) as folder:
        factors, conversion = _converted(base, adapter, inspection.card.kind, limit, text)
        _save(folder, factors, conversion, inspection.card.base_model)
    return conversion


def _converted(
    base: Path, adapter: Path, kind: str, limit: Limit, text: str
) -> tuple[Mapping[str, Factors], Conversion]:
    model = load_base(base)
    windows = judged_windows(base, text)
    linear = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    before = {name: value.clone() for name, value in model.state_dict().items()}
    plain = log_probabilities(model, windows)
    with_adapter = attach(model, adapter)
    adapted = log_probabilities(with_adapter, windows)
    given = by_peft(with_adapter, kind, limit)
    model = merged(with_adapter, adapter)
    changes = _changes(before, model.state_dict(), linear, adapter)
    exact = given is not None and set(changes) <= set(given)  # else a layer is saved whole beside PEFT's own
    factors = given if given is not None and exact else by_singular_values(changes, limit)
    _set_weights(model, before, factors)
    return factors, Conversion(
        kind=kind,
        by="peft" if exact else "singular values",
        ranks={name: len(layer.a) for name, layer in factors.items()},
        weights=weight_loss(changes, {name: factors[name].product for name in changes}),
        output=output_loss(adapted=adapted, on_its_way=log_probabilities(model, windows), base=plain),
    )


def judged_windows(base: Path, text: str) -> list[list[int]]:
    """What output losses are measured on: the first tokens of `text`."""
    return token_windows(base, text, _WINDOW)[:_WINDOWS]


def _changes(
    before: Mapping[str, torch.Tensor], after: Mapping[str, torch.Tensor], linear: set[str], adapter: Path
) -> dict[str, torch.Tensor]:
    """ΔW (N, K) by layer, of all that changed."""
    changed = [name for name, value in after.items() if not torch.equal(value, before[name])]
    if others := [name for name in changed if name not in linear]:
        raise SourceError(f"{adapter} changes {others[0]}, which is no linear layer. Merge it: a LoRA cannot say that.")
    if not changed:
        raise SourceError(f"{adapter} changes no weight of this base model. Train it, or give the base it belongs to.")
    return {name.removesuffix(".weight"): after[name] - before[name] for name in changed}


def _set_weights(model: Any, before: Mapping[str, torch.Tensor], factors: Mapping[str, Factors]) -> None:
    """Make `model` the base model with the converted adapter."""
    added = {f"{name}.weight": layer.product for name, layer in factors.items()}
    model.load_state_dict({name: value + added[name] if name in added else value for name, value in before.items()})


def _save(folder: Path, factors: Mapping[str, Factors], conversion: Conversion, base_model: str | None) -> None:
    tensors = {}
    for name, layer in factors.items():
        tensors[f"{_PREFIX}{name}.lora_A.weight"] = layer.a.contiguous()
        tensors[f"{_PREFIX}{name}.lora_B.weight"] = layer.b.contiguous()
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    odd = {name: rank for name, rank in conversion.ranks.items() if rank != conversion.rank}
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_model,
        "r": conversion.rank,
        "lora_alpha": conversion.rank,  # scale 1: it is in the factors
        "target_modules": sorted(factors),
        "rank_pattern": odd,
        "alpha_pattern": odd,
        "lora_dropout": 0.0,
        "bias": "none",
        "init_lora_weights": True,
        "inference_mode": True,
    }
    for file, value in {"adapter_config.json": config, "conversion.json": conversion.to_json()}.items():
        (folder / file).write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
