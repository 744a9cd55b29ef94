"""The ways of training: what is trained, how fast, and how the result is saved.

Sources: LoRA, arXiv 2106.09685; LoRA+ (B learns 16 times as fast as A), arXiv 2402.12354; rsLoRA, arXiv 2312.03732;
DoRA, arXiv 2402.09353; PiSSA (starts from the strongest singular vectors), arXiv 2404.02948.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from peft import LoraConfig, get_peft_model

from quant.adapters.merging import save_checkpoint
from quant.errors import SchemeError
from quant.tune.settings import Settings

__all__ = ["METHODS", "Start", "Trainee", "TuneMethod", "method_of"]

_TARGETS: Final = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
_LORA_PLUS_RATIO: Final = 16
_INITIAL: Final = "initial"  # PEFT makes it an adapter's name: no dot


@dataclass(frozen=True, slots=True, kw_only=True)
class Trainee:
    """A model that is ready to be trained."""

    model: Any
    groups: list[dict[str, Any]]
    """`params` and `factor`, by which the learning rate is multiplied."""
    save: Callable[[Path], None]
    """Write what an engine, or `quant adapter`, can read."""

    @property
    def parameters(self) -> int:
        return sum(value.numel() for group in self.groups for value in group["params"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """What a method begins with."""

    model: Any
    """The base model, float32, on its device."""
    base: Path
    scratch: Path
    """An empty folder for what is needed until the result is saved."""
    settings: Settings


Prepare = Callable[[Start], Trainee]


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneMethod:
    """One way of training."""

    summary: str
    rate: float
    """Peak learning rate where the user gives none: what works on the demo model at rank 8."""
    prepare: Prepare


def method_of(name: str) -> TuneMethod:
    """The method of that name. Raises `SchemeError` for an unknown one."""
    if name not in METHODS:
        raise SchemeError(f"There is no method {name!r}. Choose one of: {', '.join(METHODS)}.")
    return METHODS[name]


def _low_rank(**options: Any) -> Prepare:
    """LoRA on every projection, with these options of PEFT's `LoraConfig`."""

    def prepare(start: Start) -> Trainee:
        config = LoraConfig(
            task_type="CAUSAL_LM",
            base_model_name_or_path=str(start.base),
            r=start.settings.rank,
            lora_alpha=start.settings.alpha,
            target_modules=_TARGETS,
            **options,
        )
        trained = get_peft_model(start.model, config)
        return Trainee(model=trained, groups=[_group(trained)], save=lambda folder: _save(trained, folder))

    return prepare


def _lora_plus(start: Start) -> Trainee:
    trainee = _low_rank()(start)
    slow = [value for name, value in trainee.model.named_parameters() if "lora_A" in name]
    fast = [value for name, value in trainee.model.named_parameters() if "lora_B" in name]
    groups = [{"params": slow, "factor": 1.0}, {"params": fast, "factor": float(_LORA_PLUS_RATIO)}]
    return Trainee(model=trainee.model, groups=groups, save=trainee.save)


def _pissa(start: Start) -> Trainee:
    """PiSSA moves part of the base's weights into the adapter; saved is the difference, a LoRA of twice the rank.

    PEFT needs the adapter's start for that, declared as one that leaves the base alone.
    """
    trainee = _low_rank(init_lora_weights="pissa")(start)
    config = trainee.model.peft_config["default"]
    config.init_lora_weights = True
    trainee.model.save_pretrained(str(start.scratch / _INITIAL))
    config.init_lora_weights = "pissa"

    def save(folder: Path) -> None:
        trainee.model.save_pretrained(
            str(folder), path_initial_model_for_weight_conversion=str(start.scratch / _INITIAL)
        )
        (folder / "README.md").unlink(missing_ok=True)

    return Trainee(model=trainee.model, groups=trainee.groups, save=save)


def _full(start: Start) -> Trainee:
    return _checkpoint(start)


def _freeze(start: Start) -> Trainee:
    """Only the last layers and the norm behind them learn."""
    layers, count = start.model.model.layers, start.settings.layers
    if count > len(layers):
        raise SchemeError(f"--layers {count}: the model has {len(layers)}. Give fewer.")
    start.model.requires_grad_(requires_grad=False)
    for part in (*layers[len(layers) - count :], start.model.model.norm):
        part.requires_grad_(requires_grad=True)
    return _checkpoint(start)


def _checkpoint(start: Start) -> Trainee:
    def save(folder: Path) -> None:
        save_checkpoint(start.model.to(torch.bfloat16), start.base, folder)

    return Trainee(model=start.model, groups=[_group(start.model)], save=save)


def _group(model: Any) -> dict[str, Any]:
    return {"params": [value for value in model.parameters() if value.requires_grad], "factor": 1.0}


def _save(model: Any, folder: Path) -> None:
    model.save_pretrained(str(folder))
    (folder / "README.md").unlink(missing_ok=True)  # PEFT's empty form of a model card


METHODS: Final[Mapping[str, TuneMethod]] = {
    "lora": TuneMethod(summary="LoRA", rate=4e-3, prepare=_low_rank()),
    "lora+": TuneMethod(summary="LoRA whose B learns 16 times as fast", rate=1e-3, prepare=_lora_plus),
    "rslora": TuneMethod(summary="LoRA scaled by alpha / √rank", rate=2e-3, prepare=_low_rank(use_rslora=True)),
    "dora": TuneMethod(summary="LoRA with trained lengths of rows", rate=4e-3, prepare=_low_rank(use_dora=True)),
    "pissa": TuneMethod(summary="LoRA from the strongest singular vectors", rate=1e-3, prepare=_pissa),
    "freeze": TuneMethod(summary="the last layers only", rate=1e-3, prepare=_freeze),
    "full": TuneMethod(summary="every weight", rate=5e-4, prepare=_full),
}
