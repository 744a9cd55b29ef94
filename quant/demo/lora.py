"""Low-rank adapters in plain torch, in PEFT's layout on disk.

Served weight = W + scale · B @ A; W (d_out, d_in), B (d_out, rank), A (rank, d_in).
scale = alpha / rank (LoRA, arXiv 2106.09685) or alpha / √rank (rsLoRA, arXiv 2312.03732).
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn.functional import linear

__all__ = ["LowRank", "LowRankLinear", "add_adapter", "save_adapter"]

_TARGETS: Final = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_PEFT_PREFIX: Final = "base_model.model."


@dataclass(frozen=True, slots=True, kw_only=True)
class LowRank:
    """An adapter's shape."""

    rank: int
    alpha: int
    rank_stabilized: bool = False

    @property
    def scale(self) -> float:
        """The factor on B @ A."""
        return self.alpha / (math.sqrt(self.rank) if self.rank_stabilized else self.rank)


class LowRankLinear(nn.Module):  # type: ignore[misc, unused-ignore]  # torch is untyped without torch
    """A frozen linear layer plus a trainable low-rank one that starts as nothing (B = 0)."""

    def __init__(self, base: nn.Linear, shape: LowRank) -> None:
        super().__init__()
        self.base = base.requires_grad_(requires_grad=False)
        self.a = nn.Parameter(torch.empty(shape.rank, base.in_features))
        self.b = nn.Parameter(torch.zeros(base.out_features, shape.rank))
        self.scale = shape.scale
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """(…, d_in) → (…, d_out)."""
        out: torch.Tensor = self.base(inputs) + self.scale * linear(linear(inputs, self.a), self.b)
        return out


def add_adapter(model: nn.Module, shape: LowRank) -> dict[str, LowRankLinear]:
    """Freeze `model`, put an adapter on every projection, return them by the name of the layer they wrap."""
    model.requires_grad_(requires_grad=False)
    added: dict[str, LowRankLinear] = {}
    for name, module in list(model.named_modules()):
        owner, _, leaf = name.rpartition(".")
        if leaf in _TARGETS and isinstance(module, nn.Linear):
            added[name] = LowRankLinear(module, shape)
            setattr(model.get_submodule(owner), leaf, added[name])
    return added


def save_adapter(layers: dict[str, LowRankLinear], shape: LowRank, folder: Path) -> None:
    """Write adapter_config.json and adapter_model.safetensors (bf16) into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, torch.Tensor] = {}
    for name, layer in layers.items():
        tensors[f"{_PEFT_PREFIX}{name}.lora_A.weight"] = layer.a.detach().to(torch.bfloat16).contiguous()
        tensors[f"{_PEFT_PREFIX}{name}.lora_B.weight"] = layer.b.detach().to(torch.bfloat16).contiguous()
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    (folder / "adapter_config.json").write_text(json.dumps(_config(shape), indent=2) + "\n", encoding="utf-8")


def _config(shape: LowRank) -> dict[str, Any]:
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "demo",
        "r": shape.rank,
        "lora_alpha": shape.alpha,
        "use_rslora": shape.rank_stabilized,
        "use_dora": False,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": list(_TARGETS),
        "modules_to_save": None,
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "inference_mode": True,
        "rank_pattern": {},
        "alpha_pattern": {},
    }
