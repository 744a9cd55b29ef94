"""Builds the small models in the engine environment and prints, as JSON, what torch counts of each.

By model: its `config.json`, its parameters, FLOPs by operator of one forward pass over `TOKENS` tokens, how many pairs
each layer's attention mask lets through, and the numbers that the cache holds after it.
"""

from __future__ import annotations

import json
import warnings
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import logging

from tests.models.tiny_models import TINY, TOKENS


def count(family: str, keys: dict[str, Any]) -> dict[str, Any]:
    config = AutoConfig.for_model(family, **keys)
    config._experts_implementation = "eager"
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    config.architectures = [type(model).__name__]
    ids = torch.randint(3, 90, (1, TOKENS))
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        answer = model(input_ids=ids, use_cache=True, output_attentions=True)
    attentions = [weights for weights in getattr(answer, "attentions", None) or () if weights is not None]
    return {
        "config": json.loads(config.to_json_string(use_diff=True)),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "flops": {str(op).rpartition(".")[2]: flops for op, flops in counter.get_flop_counts()["Global"].items()},
        "pairs": [int((weights[0, 0] > 0).sum()) for weights in attentions],
        "cached": _cached(answer),
    }


def _cached(answer: Any) -> int | None:
    """Numbers in keys and values; None: this class keeps no such cache."""
    layers = getattr(getattr(answer, "past_key_values", None), "layers", ())
    tensors = [t for layer in layers for t in (getattr(layer, "keys", None), getattr(layer, "values", None))]
    held = [tensor.numel() for tensor in tensors if isinstance(tensor, torch.Tensor)]
    return sum(held) if held else None


def main() -> None:
    logging.set_verbosity_error()
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    torch.set_num_threads(1)
    print(json.dumps({name: count(family, keys) for name, (family, keys) in TINY.items()}))


if __name__ == "__main__":
    main()
