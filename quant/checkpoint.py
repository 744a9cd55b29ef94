"""A checkpoint on disk: its configuration and its tensors, read one by one."""

from __future__ import annotations

import contextlib
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
        *("q_proj", "k_proj", "v_proj", "o_proj", "qkv_proj"),
        *("gate_proj", "up_proj", "down_proj", "gate_up_proj"),
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
        return found

    def tensors(self, file: str) -> Iterator[tuple[str, torch.Tensor]]:
        """Every tensor of one file in the order of its data; only one is in memory at a time."""
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
    names = _file_names(folder)
    files = {name: read_header(folder / name) for name in names}
    return Checkpoint(folder=folder, config=config, files=files)


def _file_names(folder: Path) -> list[str]:
    if (folder / _INDEX).exists():
        with contextlib.suppress(AttributeError, KeyError, TypeError):
            return sorted(set(_read_json(folder / _INDEX)["weight_map"].values()))
        raise SourceError(f"{folder / _INDEX} has no weight_map. Copy the checkpoint again.")
    if (folder / _WEIGHTS).exists():
        return [_WEIGHTS]
    raise SourceError(f"{folder} has no {_WEIGHTS}. Only safetensors checkpoints are read: convert it first.")


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
