"""Writes safetensors files, checkpoints and adapters whose tensors are all zeros."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

BITS = {"BF16": 16, "F16": 16, "F32": 32, "F8_E4M3": 8, "I8": 8, "U8": 8, "I32": 32, "I64": 64}

Shapes = Mapping[str, tuple[str, tuple[int, ...]]]
"""Tensor name → (dtype, shape)."""

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}
"""A small Llama; `llama_tensors` follows it."""

LINEARS = {
    "self_attn.q_proj": (64, 64),
    "self_attn.k_proj": (32, 64),
    "self_attn.v_proj": (32, 64),
    "self_attn.o_proj": (64, 64),
    "mlp.gate_proj": (128, 64),
    "mlp.up_proj": (128, 64),
    "mlp.down_proj": (64, 128),
}
"""(outputs, inputs) of a block's linear layers."""

LINEAR_PARAMETERS = 2 * sum(outputs * inputs for outputs, inputs in LINEARS.values())
NORM_PARAMETERS = 5 * 64
EMBEDDING_PARAMETERS = 512 * 64

W8A8 = {
    "quant_method": "compressed-tensors",
    "format": "int-quantized",
    "config_groups": {
        "group_0": {
            "targets": ["Linear"],
            "weights": {"num_bits": 8, "type": "int", "strategy": "channel", "group_size": None},
            "input_activations": {"num_bits": 8, "type": "int", "dynamic": True},
        }
    },
    "ignore": ["lm_head"],
}


def weight_only(
    bits: int, *, kind: str = "int", layout: str = "pack-quantized", group: int | None = 32
) -> dict[str, Any]:
    """A compressed-tensors section that leaves activations alone."""
    weights = {"num_bits": bits, "type": kind, "strategy": "group", "group_size": group}
    groups = {"group_0": {"targets": ["Linear"], "weights": weights, "input_activations": None}}
    return {"quant_method": "compressed-tensors", "format": layout, "config_groups": groups, "ignore": ["lm_head"]}


def write_safetensors(path: Path, shapes: Shapes, values: Mapping[str, bytes] | None = None) -> Path:
    """A valid file; `values` replaces single tensors' zeros."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    data = bytearray()
    for name, (dtype, shape) in shapes.items():
        size = math.prod(shape) * BITS[dtype] // 8
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [len(data), len(data) + size]}
        data += (values or {}).get(name, bytes(size))
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def llama_tensors(*, tied: bool = False, linears: Mapping[str, tuple[int, int]] = LINEARS) -> Shapes:
    """A Llama of two blocks in bfloat16."""
    tensors: dict[str, tuple[str, tuple[int, ...]]] = {"model.embed_tokens.weight": ("BF16", (512, 64))}
    for block in ("model.layers.0", "model.layers.1"):
        tensors |= {f"{block}.{name}.weight": ("BF16", shape) for name, shape in linears.items()}
        tensors |= {
            f"{block}.{name}.weight": ("BF16", (64,)) for name in ("input_layernorm", "post_attention_layernorm")
        }
    tensors["model.norm.weight"] = ("BF16", (64,))
    return tensors if tied else {**tensors, "lm_head.weight": ("BF16", (512, 64))}


def int8_tensors(shapes: Shapes) -> Shapes:
    """The same with every linear layer in W8A8: int8 and one scale a row."""
    out: dict[str, tuple[str, tuple[int, ...]]] = {}
    for name, (dtype, shape) in shapes.items():
        if "_proj." in name:
            out[name] = ("I8", shape)
            out[f"{name}_scale"] = ("BF16", (shape[0], 1))
        else:
            out[name] = (dtype, shape)
    return out


def int4_tensors(shapes: Shapes, group: int = 32) -> tuple[Shapes, dict[str, bytes]]:
    """The same with every linear layer in W4A16, and the values of the `weight_shape` tensors."""
    out: dict[str, tuple[str, tuple[int, ...]]] = {}
    values = {}
    for name, (dtype, shape) in shapes.items():
        if "_proj." in name:
            outputs, inputs = shape
            out[f"{name}_packed"] = ("I32", (outputs, math.ceil(inputs / 8)))
            out[f"{name}_scale"] = ("BF16", (outputs, math.ceil(inputs / group)))
            out[f"{name}_shape"] = ("I64", (2,))
            values[f"{name}_shape"] = struct.pack("<2q", outputs, inputs)
        else:
            out[name] = (dtype, shape)
    return out, values


def write_checkpoint(
    folder: Path,
    shapes: Shapes | None = None,
    values: Mapping[str, bytes] | None = None,
    **config: Any,
) -> Path:
    """`config.json` and one safetensors file; `config` changes single keys of `CONFIG` (None removes one)."""
    folder.mkdir(parents=True, exist_ok=True)
    keys = {key: value for key, value in {**CONFIG, **config}.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(keys))
    write_safetensors(folder / "model.safetensors", llama_tensors() if shapes is None else shapes, values)
    return folder


def write_int8(folder: Path) -> Path:
    """The small Llama in W8A8."""
    return write_checkpoint(folder, int8_tensors(llama_tensors()), quantization_config=W8A8)


def write_int4(folder: Path, linears: Mapping[str, tuple[int, int]] = LINEARS) -> Path:
    """The small Llama in W4A16."""
    return write_checkpoint(folder, *int4_tensors(llama_tensors(linears=linears)), quantization_config=weight_only(4))


def shard(folder: Path, shapes: Shapes, count: int) -> list[Path]:
    """Replace a checkpoint's one file by `count` of them and an index."""
    (folder / "model.safetensors").unlink(missing_ok=True)
    paths = [folder / f"model-{part + 1:05}-of-{count:05}.safetensors" for part in range(count)]
    weight_map = {name: paths[index % count].name for index, name in enumerate(shapes)}
    for path in paths:
        write_safetensors(path, {name: shapes[name] for name, place in weight_map.items() if place == path.name})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return paths


def write_adapter(
    folder: Path,
    *,
    rank: int = 8,
    linears: Mapping[str, tuple[int, int]] = LINEARS,
    tensors: Shapes | None = None,
    **config: Any,
) -> Path:
    """A LoRA on every linear layer of the small Llama; `tensors` stands beside the matrices."""
    folder.mkdir(parents=True, exist_ok=True)
    keys = {"peft_type": "LORA", "r": rank, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj"], "bias": "none"}
    (folder / "adapter_config.json").write_text(
        json.dumps({key: value for key, value in {**keys, **config}.items() if value is not None})
    )
    shapes: dict[str, tuple[str, tuple[int, ...]]] = {}
    for block in (0, 1):
        for name, (outputs, inputs) in linears.items():
            module = f"base_model.model.model.layers.{block}.{name}"
            shapes[f"{module}.lora_A.weight"] = ("F32", (rank, inputs))
            shapes[f"{module}.lora_B.weight"] = ("F32", (outputs, rank))
    write_safetensors(folder / "adapter_model.safetensors", {**shapes, **(tensors or {})})
    return folder
