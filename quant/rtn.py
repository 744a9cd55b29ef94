"""Round a checkpoint to integers, tensor by tensor."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import torch

from quant.checkpoint import Checkpoint, is_linear, open_checkpoint
from quant.errors import SchemeError, SourceError
from quant.methods import Method
from quant.safetensors_file import TensorSpec, write_file
from quant.whole_directory import whole_directory

__all__ = ["round_to_nearest"]

_ROUNDABLE: Final = frozenset({"BF16", "F16", "F32"})
_COPIED: Final = ("*.json", "*.jinja", "*.model", "*.txt")
_NOT_COPIED: Final = frozenset({"config.json", "model.safetensors.index.json", "training.json"})
_KEPT_WORDS: Final = ("embed", "wte", "wpe")  # embeddings are no linear layers: an engine does not ask about them


def round_to_nearest(source: Path, out: Path, method: Method) -> None:
    """Write `source` as a variant into `out`, which is whole or absent afterwards.

    Linear layers inside the blocks are quantized; embeddings, norms, routers and the output head stay as they are.
    Memory: a few copies of the largest matrix. Raises a `QuantError`.
    """
    checkpoint = open_checkpoint(source)
    if checkpoint.quantization is not None:
        raise SourceError(f"{source} is quantized already. Start from its bf16, fp16 or fp32 original.")
    plans = {file: _plan(specs, method) for file, specs in checkpoint.files.items()}
    if not any(is_linear(name, spec) for specs in checkpoint.files.values() for name, spec in specs.items()):
        raise SourceError(f"{source} has no linear layers known here (q_proj, … down_proj). Nothing to quantize.")
    with whole_directory(out) as folder:
        for file, plan in plans.items():
            write_file(folder / file, plan, _rounded_tensors(checkpoint, file, method))
        _write_index(folder, plans)
        _copy_rest(source, folder)
        config = {**checkpoint.config, "quantization_config": method.config(_ignored(checkpoint))}
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _plan(specs: Mapping[str, TensorSpec], method: Method) -> dict[str, TensorSpec]:
    """Names, types and shapes of an output file."""
    plan: dict[str, TensorSpec] = {}
    for name, spec in specs.items():
        if is_linear(name, spec):
            plan |= _replacement(name, spec, method)
        else:
            plan[name] = spec
    return plan


def _replacement(name: str, spec: TensorSpec, method: Method) -> dict[str, TensorSpec]:
    if spec.dtype not in _ROUNDABLE:
        raise SourceError(f"{name} is stored as {spec.dtype}. Start from a bf16, fp16 or fp32 checkpoint.")
    module = name.removesuffix("weight")
    try:
        return {module + part: planned for part, planned in method.layout(spec).items()}
    except SchemeError as exc:
        raise SchemeError(f"{name} cannot be quantized: {exc}") from exc


def _rounded_tensors(checkpoint: Checkpoint, file: str, method: Method) -> Iterator[tuple[str, torch.Tensor]]:
    for name, tensor in checkpoint.tensors(file):
        if not is_linear(name, checkpoint.files[file][name]):
            yield name, tensor
            continue
        if not bool(tensor.isfinite().all()):
            raise SourceError(f"{name} holds NaN or infinite values. The checkpoint is broken: copy or train it again.")
        module = name.removesuffix("weight")
        yield from ((module + part, value) for part, value in method.quantize(tensor).items())


def _ignored(checkpoint: Checkpoint) -> list[str]:
    """The modules with a matrix that is not quantized; `lm_head` is named even where it is tied to the embeddings."""
    kept = {
        name.removesuffix(".weight")
        for specs in checkpoint.files.values()
        for name, spec in specs.items()
        if name.endswith(".weight") and len(spec.shape) == 2 and not is_linear(name, spec)
    }
    return sorted({"lm_head", *(name for name in kept if not any(word in name for word in _KEPT_WORDS))})


def _write_index(folder: Path, plans: Mapping[str, Mapping[str, TensorSpec]]) -> None:
    if len(plans) < 2:
        return
    weight_map = {name: file for file, plan in plans.items() for name in plan}
    total = sum(spec.size for plan in plans.values() for spec in plan.values())
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _copy_rest(source: Path, folder: Path) -> None:
    """Tokenizer, chat template, generation settings; never what was measured of the source's quality."""
    for pattern in _COPIED:
        for file in sorted(source.glob(pattern)):
            if file.name not in _NOT_COPIED and not file.name.startswith("quality."):
                shutil.copyfile(file, folder / file.name)
