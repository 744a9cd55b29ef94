"""Write the base model with an adapter's change in its weights, as a checkpoint of its own."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import torch

from quant.adapters import Way
from quant.adapters.conversion import judged_windows
from quant.adapters.inspection import inspect_adapter
from quant.adapters.losses import OutputLoss, log_probabilities, output_loss
from quant.adapters.peft_model import attach, load_base, merged
from quant.errors import SourceError
from quant.whole_directory import whole_directory

__all__ = ["Merge", "merge", "save_checkpoint"]

_COPIED: Final = ("tokenizer*", "special_tokens_map.json", "*.jinja", "*.model", "vocab.*", "merges.txt")
"""What a checkpoint has beside weights and configuration."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Merge:
    """What became of an adapter."""

    kind: str
    dtype: str
    output: OutputLoss
    """What rounding the merged weights to `dtype` loses."""

    def to_json(self) -> dict[str, Any]:
        return {
            "from": self.kind,
            "dtype": self.dtype,
            "tools": {name: version(name) for name in ("peft", "torch", "transformers")},
            "output": self.output.to_json(),
        }


def merge(base: Path, adapter: Path, out: Path, text: str) -> Merge:
    """Write `base` with `adapter` merged into `out`, whole or absent, with `merge.json` beside it.

    The weights keep the base's dtype; what rounding to it loses is measured. Memory: the base twice in float32. Raises
    a `QuantError`.
    """
    inspection = inspect_adapter(adapter, base)
    if inspection.way is Way.REFUSE:
        raise SourceError(f"{adapter} cannot be merged: it {inspection.because}. Instead: {inspection.instead}")
    with whole_directory(out) as folder:
        model, result = _merged(base, adapter, inspection.card.kind, text)
        save_checkpoint(model, base, folder)
        (folder / "merge.json").write_text(json.dumps(result.to_json(), indent=2) + "\n", encoding="utf-8")
    return result


def _merged(base: Path, adapter: Path, kind: str, text: str) -> tuple[Any, Merge]:
    model = load_base(base)
    windows = judged_windows(base, text)
    names = set(model.state_dict())
    plain = log_probabilities(model, windows)
    with_adapter = attach(model, adapter)
    adapted = log_probabilities(with_adapter, windows)
    model = merged(with_adapter, adapter)
    if odd := sorted(names ^ set(model.state_dict())):
        raise SourceError(f"{adapter} changes the model's architecture ({odd[0]}): no checkpoint can hold that.")
    dtype = _dtype(base)
    for value in model.parameters():
        value.data = value.data.to(dtype).float()  # as the file will have them, computed in float32
    loss = output_loss(adapted=adapted, on_its_way=log_probabilities(model, windows), base=plain)
    return model.to(dtype), Merge(kind=kind, dtype=str(dtype).removeprefix("torch."), output=loss)


def save_checkpoint(model: Any, base: Path, folder: Path) -> None:
    """Weights and configuration of `model`, and what else `base` has to be served: tokenizer and templates."""
    model.save_pretrained(folder)
    for pattern in _COPIED:
        for file in sorted(base.glob(pattern)):
            shutil.copyfile(file, folder / file.name)


def _dtype(base: Path) -> torch.dtype:
    """What the base's weights are stored in."""
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    found = getattr(torch, str(config.get("dtype") or config.get("torch_dtype") or "bfloat16"), None)
    return found if isinstance(found, torch.dtype) else torch.bfloat16
