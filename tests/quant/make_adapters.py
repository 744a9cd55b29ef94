"""Makes an adapter of every kind that PEFT knows, on the demo model; runs in the quant environment.

`python -m tests.quant.make_adapters OUT [NAME …]` writes one folder each, and `expected.json`: by name, the
log-probability of every token of `PROMPT` but the first, with the adapter on, in float32 (for those that an engine is
to serve in some way), and of the base model under the name `base`.
"""

from __future__ import annotations

import copy
import inspect
import json
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from peft import get_peft_model
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from transformers import AutoModelForCausalLM

from server.models.adapter_kinds import ADAPTER_KINDS, Way

__all__: list[str] = []

PROMPT: Final = list(range(300, 348))
_LAYER: Final = ["layers.1.self_attn.q_proj", "layers.1.self_attn.v_proj", "layers.1.mlp.down_proj"]
_TOKENS: Final = {"num_virtual_tokens": 4}
_EFFECT: Final = 0.3  # relative change of the logits at most, so that bf16 noise on the engine stays far below
_NOISES: Final = (50, 15, 5, 1.5, 0.5, 0.15, 0.05, 0.015, 0.005)

_OPTIONS: Final[Mapping[str, Mapping[str, Any]]] = {
    "adalora": {"total_step": 10, "init_r": 4},
    "adaption_prompt": {"adapter_len": 4, "adapter_layers": 2, "target_modules": None},
    "c3a": {"block_size": 128},
    "cartridge": _TOKENS,
    "ia3": {"feedforward_modules": ["layers.1.mlp.down_proj"]},
    "ln_tuning": {"target_modules": ["layers.1.input_layernorm"]},
    "multitask_prompt_tuning": {**_TOKENS, "num_tasks": 2},
    "p_tuning": _TOKENS,
    "prefix_tuning": _TOKENS,
    "prompt_tuning": _TOKENS,
    "shadow": {"target_modules": None},
    "trainable_tokens": {"target_modules": ["embed_tokens"], "token_indices": [301, 302, 310]},
    "vblora": {"vector_length": 64, "num_vectors": 16, "topk": 2, "r": 4},
    "xlora": {"hidden_size": 256, "adapters": {}},
}
"""What a kind needs beside its defaults; `target_modules` is the layer above where nothing else is said."""

_LORAS: Final[Mapping[str, Mapping[str, Any]]] = {
    "lora-rslora": {"use_rslora": True},
    "lora-dora": {"use_dora": True},
    "lora-pissa": {"init_lora_weights": "pissa"},
    "lora-olora": {"init_lora_weights": "olora"},
    "lora-tokens": {"trainable_token_indices": [301, 302]},
    "lora-norm": {"modules_to_save": ["norm"]},
    "lora-alora": {"alora_invocation_tokens": [5]},
    "lora-bias": {"lora_bias": True},
    "lora-layers": {"layer_replication": [[0, 4], [2, 4]]},
}
"""LoRAs that are more than LoRA."""


def main(out: Path, names: list[str]) -> None:
    base = AutoModelForCausalLM.from_pretrained("models/demo", dtype=torch.float32).eval()
    expected = {"base": _log_probabilities(base)}
    kinds = {kind.value.lower(): kind for kind in PEFT_TYPE_TO_CONFIG_MAPPING}
    for name in names or [*kinds, *_LORAS]:
        torch.manual_seed(0)
        config = PEFT_TYPE_TO_CONFIG_MAPPING[kinds[name.split("-")[0]]]
        options = {"task_type": "CAUSAL_LM", **_target(config), **_OPTIONS.get(name, {}), **_LORAS.get(name, {})}
        if name == "xlora":
            options["adapters"] = {"one": str(out / "lora")}
        model = copy.deepcopy(base)
        model.config.use_cache = name != "xlora"
        with_adapter = get_peft_model(model, config(**options)).eval()
        if ADAPTER_KINDS[name.split("-")[0]].way is not Way.REFUSE:
            expected[name] = _disturb(with_adapter, expected["base"])
        with_adapter.save_pretrained(str(out / name))
    (out / "expected.json").write_text(json.dumps(expected), encoding="utf-8")


def _target(config: type[Any]) -> dict[str, Any]:
    return {"target_modules": _LAYER} if "target_modules" in inspect.signature(config).parameters else {}


def _disturb(model: Any, base: list[float]) -> list[float]:
    """Noise on what is trainable, as if it had been trained: enough to be seen, little enough to compare."""
    trained = [(value, value.detach().clone()) for value in model.parameters() if value.requires_grad]
    reference = torch.tensor(base)
    found: list[float] = []
    for noise in _NOISES:
        torch.manual_seed(1)
        for value, before in trained:
            value.data = before + noise * before.std().clamp(0.1, 1.0).nan_to_num(0.1) * torch.randn_like(before)
        found = _log_probabilities(model)
        if (torch.tensor(found) - reference).abs().mean() < _EFFECT:
            break
    return found


def _log_probabilities(model: Any) -> list[float]:
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([PROMPT])).logits[0]
    values = logits[:-1].log_softmax(-1).gather(-1, torch.tensor(PROMPT[1:]).unsqueeze(-1))
    return [float(value) for value in values.squeeze(-1)]


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(Path(sys.argv[1]), sys.argv[2:])
