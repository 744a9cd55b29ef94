"""A checkpoint on disk: its configuration and its tensors, read one by one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import safe_open

from quant.errors import SourceError
from quant.safetensors_file import TensorSpec, read_header

__all__ = ["Checkpoint", "is_linear", "open_checkpoint"]

_LINEAR_LAYERS: Final = frozenset(
    {
        *("q_proj", "k_proj", "v_proj", "o_proj", "qkv_proj", "out_proj"),
        *("q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj"),
        *("gate_proj", "up_proj", "down_proj", "gate_up_proj"),
        *("fc1", "fc2", "w1", "w2", "w3"),
    }
)
_INDEX: Final = "model.safetensors.index.json"
_WEIGHTS: Final = "model.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A directory with config.json and safetensors files whose headers are sound."""

    folder: Path
    config: Mapping[str, Any]
    files: Mapping[str, Mapping[str, TensorSpec]]  # file name → tensor name → spec, in the order of the data

    @property
    def quantization(self) -> Mapping[str, Any] | None:
        """The `quantization_config`, or None for a checkpoint in floating point."""
        found: Mapping[str, Any] | None = self.config.get("quantization_config")
        return found if found is not None else self.config.get("compression_config")

    @property
    def size(self) -> int:
        """Bytes of all tensors."""
        return sum(spec.size for specs in self.files.values() for spec in specs.values())

    def tensors(self, file: str) -> Iterator[tuple[str, torch.Tensor]]:
        """Every tensor of one file in the order of its data, mapped into memory: pages are read when they are used."""
        with safe_open(self.folder / file, framework="pt") as reader:
            for name in self.files[file]:
                yield name, reader.get_tensor(name)


def is_linear(name: str, spec: TensorSpec) -> bool:
    """Whether `name` is the (outputs, inputs) weight of a projection inside a layer; embeddings and heads are not."""
    module, _, kind = name.rpartition(".")
    return kind == "weight" and len(spec.shape) == 2 and module.rpartition(".")[2] in _LINEAR_LAYERS


def open_checkpoint(folder: Path) -> Checkpoint:
    """Read configuration and headers; no tensor data. Raises `SourceError` for what is missing or broken."""
    if not folder.is_dir():
        raise SourceError(f"There is no checkpoint directory {folder}. Check the path.")
    config = _read_json(folder / "config.json")
    places = _read_index(folder)
    if places is None and not (folder / _WEIGHTS).exists():
        raise SourceError(f"{folder} has no {_WEIGHTS}. Only safetensors checkpoints are read: convert it first.")
    names = [_WEIGHTS] if places is None else sorted(set(places.values()))
    files = {name: read_header(folder / name) for name in names}
    for tensor, file in (places or {}).items():
        if tensor not in files[file]:
            raise SourceError(f"{folder / _INDEX} says that {file} holds {tensor}, which it does not. Copy both again.")
    return Checkpoint(folder=folder, config=config, files=files)


def _read_index(folder: Path) -> dict[str, str] | None:
    """Tensor → file, all of which exist; None for a checkpoint without an index."""
    path = folder / _INDEX
    if not path.exists():
        return None
    places = _read_json(path).get("weight_map")
    if not isinstance(places, dict) or not places or not all(_is_file_name(file) for file in places.values()):
        raise SourceError(f"{path} has no weight_map from tensors to safetensors files. Copy the checkpoint again.")
    missing = sorted({file for file in places.values() if not (folder / file).is_file()})
    if missing:
        tensor = next(name for name, file in places.items() if file == missing[0])
        raise SourceError(
            f"{path} names {len(missing)} files that are not there: {', '.join(missing[:5])} (with {tensor}, for one). "
            "Copy the checkpoint again."
        )
    return places


def _is_file_name(value: Any) -> bool:
    return isinstance(value, str) and Path(value).name == value and value.endswith(".safetensors")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as exc:
        raise SourceError(f"{path} is missing. A checkpoint is a directory with config.json and safetensors.") from exc
    except (OSError, ValueError) as exc:
        raise SourceError(f"{path} cannot be read as JSON: {exc}. Copy the checkpoint again.") from exc
    if not isinstance(value, dict):
        raise SourceError(f"{path} holds no JSON object. Copy the checkpoint again.")
    return value
