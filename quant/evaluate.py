"""Held-out perplexity of a checkpoint, offline, by a reader that dequantizes.

Perplexity = exp(mean negative log-likelihood in nats a token) over windows of consecutive tokens that do not overlap;
the first token of a window has no predecessor and is not scored. `served.py` scores the same windows on an engine.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from quant.checkpoint import open_checkpoint
from quant.dequantize import read_weights
from quant.errors import SourceError
from quant.methods import Method, method_on_disk

__all__ = ["load_dequantized", "perplexity", "perplexity_of_checkpoint", "token_windows"]


def token_windows(folder: Path, text: str, length: int) -> list[list[int]]:
    """The tokens of `text` by the checkpoint's tokenizer, cut into windows of `length` tokens; the rest is dropped.

    Raises `SourceError` if there is no tokenizer or the text does not fill a window.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as exc:
        raise SourceError(f"{folder} has no tokenizer that can be read. Copy it from the original model.") from exc
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
    if len(ids) < length or length < 2:
        raise SourceError(f"The text has {len(ids)} tokens and a window {length}. Give a longer text.")
    return [ids[start : start + length] for start in range(0, len(ids) - length + 1, length)]


def perplexity_of_checkpoint(folder: Path, text: str, length: int) -> float:
    """Perplexity of `text`; float32 arithmetic. Raises `SourceError` for a checkpoint that cannot be read."""
    return perplexity(load_dequantized(folder), token_windows(folder, text, length))


def perplexity(model: Any, windows: Sequence[Sequence[int]]) -> float:
    """Perplexity of `windows`, all of one length, for a model that maps ids (rows, length) to logits."""
    with torch.inference_mode():
        total = math.fsum(_negative_log_likelihood(model, torch.tensor(window)) for window in windows)
    return math.exp(total / sum(len(window) - 1 for window in windows))


def _negative_log_likelihood(model: Any, ids: torch.Tensor) -> float:
    """Nats, summed over all of `ids` (length,) but the first."""
    logits = model(input_ids=ids.unsqueeze(0), use_cache=False).logits[0]  # (length, vocabulary)
    return float(cross_entropy(logits[:-1].float(), ids[1:], reduction="sum"))


def load_dequantized(folder: Path) -> nn.Module:
    """A float32 model with the weights that an engine would compute with, rounding activations where it would."""
    checkpoint = open_checkpoint(folder)
    config = AutoConfig.from_pretrained(folder)
    config.__dict__.pop("quantization_config", None)
    model: nn.Module = AutoModelForCausalLM.from_config(config).float().eval()
    missing, unexpected = model.load_state_dict(read_weights(checkpoint), strict=False)
    if unexpected or set(missing) - {"lm_head.weight"}:
        raise ValueError(f"{folder}: weights and model do not fit: {missing} {unexpected}")
    if checkpoint.quantization is not None:
        _round_inputs(model, method_on_disk(checkpoint.quantization), checkpoint.quantization.get("ignore", ()))
    return model


def _round_inputs(model: nn.Module, method: Method, ignored: Collection[str]) -> None:
    """Let every quantized layer see its inputs as the engine rounds them."""

    def before(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (method.round_activations(inputs[0]), *inputs[1:])

    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and name not in ignored:
            module.register_forward_pre_hook(before)
