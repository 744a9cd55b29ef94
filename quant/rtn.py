"""Round a checkpoint's linear layers to nearest."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch

from quant.checkpoint import Checkpoint, is_linear, open_checkpoint
from quant.errors import SchemeError, SourceError
from quant.methods import Method
from quant.safetensors_file import TensorSpec
from quant.stream import write_converted
from quant.whole_directory import whole_directory

__all__ = ["Rounding", "open_unquantized", "round_to_nearest"]

_ROUNDABLE: Final = frozenset({"BF16", "F16", "F32"})
_KEPT_WORDS: Final = ("embed", "wte", "wpe")  # embeddings are no linear layers: an engine does not ask about them
_PATTERN: Final = "re:"


def round_to_nearest(source: Path, out: Path, method: Method) -> None:
    """Write `source` as a variant into `out`, which is whole or absent afterwards. Raises a `QuantError`."""
    checkpoint = open_unquantized(source)
    rounding = Rounding.of(checkpoint, method)
    with whole_directory(out) as folder:
        write_converted(checkpoint, rounding, folder)


def open_unquantized(source: Path) -> Checkpoint:
    """Raises `SourceError` for a checkpoint that is broken, or quantized already."""
    checkpoint = open_checkpoint(source)
    if checkpoint.quantization is not None:
        raise SourceError(f"{source} is quantized already. Start from its bf16, fp16 or fp32 original.")
    return checkpoint


@dataclass(frozen=True, slots=True)
class Rounding:
    """A conversion (see stream.py): linear layers are quantized, but those that are left out.

    Embeddings, norms, routers and the output head stay as they are.
    """

    method: Method
    left_out: frozenset[str] = frozenset()  # modules

    @classmethod
    def of(cls, checkpoint: Checkpoint, method: Method, ignore: Sequence[str] = ()) -> Rounding:
        """`ignore`: names of modules, or `re:` and a pattern of their names. Raises a `QuantError`."""
        tensors = {name: spec for specs in checkpoint.files.values() for name, spec in specs.items()}
        modules = {name.rpartition(".")[0] for name in tensors} | {"lm_head"}  # a tied head has no tensor
        linear = {name.removesuffix(".weight") for name, spec in tensors.items() if is_linear(name, spec)}
        left_out = frozenset(module for entry in ignore for module in _matching(entry, modules))
        if not linear - left_out:
            reason = (
                "all its linear layers are left out" if linear else "it has no linear layers known here (q_proj, …)"
            )
            raise SourceError(f"Nothing to quantize in {checkpoint.folder}: {reason}.")
        return cls(method, left_out)

    @property
    def rows_together(self) -> int:
        return self.method.rows_together

    def layout(self, name: str, spec: TensorSpec) -> Mapping[str, TensorSpec] | None:
        if not self._is_rounded(name, spec):
            return None
        if spec.dtype not in _ROUNDABLE:
            raise SourceError(f"{name} is stored as {spec.dtype}. Start from a bf16, fp16 or fp32 checkpoint.")
        module = name.removesuffix("weight")
        try:
            return {module + part: planned for part, planned in self.method.layout(spec).items()}
        except SchemeError as exc:
            raise SchemeError(f"{name} cannot be quantized: {exc}") from exc

    def convert(self, name: str, rows: torch.Tensor) -> Mapping[str, torch.Tensor]:
        module = name.removesuffix("weight")
        return {module + part: value for part, value in self.method.quantize(rows).items()}

    def config(self, checkpoint: Checkpoint) -> dict[str, Any]:
        return {**checkpoint.config, "quantization_config": self.method.config(self._ignored(checkpoint))}

    def _is_rounded(self, name: str, spec: TensorSpec) -> bool:
        return is_linear(name, spec) and name.removesuffix(".weight") not in self.left_out

    def _ignored(self, checkpoint: Checkpoint) -> list[str]:
        """The modules with a matrix that stays as it is; `lm_head` is named even where it is tied to the embeddings."""
        kept = {
            name.removesuffix(".weight")
            for specs in checkpoint.files.values()
            for name, spec in specs.items()
            if name.endswith(".weight") and len(spec.shape) == 2 and not self._is_rounded(name, spec)
        }
        return sorted({"lm_head", *(name for name in kept if not any(word in name for word in _KEPT_WORDS))})


def _matching(entry: str, modules: set[str]) -> list[str]:
    """The modules that an entry of `ignore` names. Raises `SchemeError` if there are none."""
    try:
        pattern = re.compile(entry.removeprefix(_PATTERN)) if entry.startswith(_PATTERN) else None
    except re.error as exc:
        raise SchemeError(f"`ignore` holds {entry!r}, which is no regular expression ({exc}).") from exc
    found = [module for module in modules if (pattern.match(module) if pattern else module == entry)]
    if not found:
        raise SchemeError(f"`ignore` names {entry!r}, and the checkpoint has no such module. Check its spelling.")
    return found
