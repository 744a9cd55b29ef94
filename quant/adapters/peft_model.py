"""Base and adapter as one model, in PEFT; every failure is named."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import torch
from peft import PeftModel, get_peft_model_state_dict
from peft.utils import load_peft_weights
from transformers import AutoModelForCausalLM

from quant.adapters.inspection import require_finite
from quant.checkpoint import open_checkpoint
from quant.errors import SourceError

__all__ = ["attach", "load_base", "merged"]

_FIRST: Final = 3
_PEFT_FAILURES: Final = (
    ValueError,
    TypeError,
    KeyError,
    RuntimeError,
    AttributeError,
    NotImplementedError,
    ImportError,
)
"""What PEFT raises for a configuration or weights that do not fit; there is no class of its own."""


def load_base(base: Path) -> Any:
    """The base model, float32, for inference. Raises `SourceError` if it is quantized or cannot be read."""
    if open_checkpoint(base).quantization is not None:
        raise SourceError(
            f"{base} is quantized already. Give its bf16, fp16 or fp32 original, and quantize afterwards."
        )
    try:
        return AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, local_files_only=True).eval()
    except (OSError, ValueError, RuntimeError) as exc:
        raise SourceError(f"{base} cannot be loaded: {_first_line(exc)}. Check config.json and the weights.") from exc


def attach(model: Any, adapter: Path) -> Any:
    """`model` with the adapter on it. Raises `SourceError` if they do not fit or the weights are not finite."""
    require_finite(adapter)
    with _named(adapter, "cannot be put on this base model", "Give the base it was trained on."):
        with_adapter = PeftModel.from_pretrained(model, str(adapter)).eval()
        held = set(load_peft_weights(str(adapter), device="cpu"))
        wanted = set(get_peft_model_state_dict(with_adapter))
    if odd := sorted(held - wanted) or sorted(wanted - held):
        what = "holds tensors that no layer of the base takes" if held - wanted else "lacks tensors"
        raise SourceError(f"{adapter} {what}: {_some(odd)}. Give the base it was trained on, or save it again.")
    _require_finite_parameters(with_adapter, adapter)
    return with_adapter


def merged(with_adapter: Any, adapter: Path) -> Any:
    """The base model with the adapter's change in its weights. Raises `SourceError` if PEFT cannot, or made NaN."""
    before = {name for name in with_adapter.get_base_model().state_dict() if "base_layer" in name}
    with _named(adapter, "cannot be merged into this base model", "Train a LoRA on the same data instead."):
        model = with_adapter.merge_and_unload()
    if any("base_layer" in name for name in model.state_dict()):
        raise SourceError(f"{adapter} cannot be merged: {len(before)} layers stay wrapped. Train a LoRA instead.")
    _require_finite_parameters(model, adapter)
    return model


@contextlib.contextmanager
def _named(adapter: Path, what: str, todo: str) -> Iterator[None]:
    """Map PEFT's own exceptions; its warnings say nothing that is not checked here."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except _PEFT_FAILURES as exc:
        raise SourceError(f"{adapter} {what}: {_first_line(exc)}. {todo}") from exc


def _require_finite_parameters(model: Any, adapter: Path) -> None:
    for name, value in model.named_parameters():
        if not bool(value.isfinite().all()):
            raise SourceError(f"{adapter}: {name} is NaN or infinite with this adapter. Train the adapter again.")


def _first_line(exc: BaseException) -> str:
    """The line that says something: torch puts the layer and its two shapes into the second."""
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()] or [type(exc).__name__]
    shown = next((line for line in lines if "size mismatch" in line), lines[0])
    return shown[:400].rstrip(".")


def _some(names: list[str]) -> str:
    return ", ".join(names[:_FIRST]) + (", …" if len(names) > _FIRST else "")
