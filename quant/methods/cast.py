"""Another floating-point type for every tensor: bf16, fp16 or fp32."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import torch

from quant.checkpoint import Checkpoint
from quant.errors import SchemeError, SourceError
from quant.safetensors_file import TensorSpec

__all__ = ["DTYPES", "Cast"]

DTYPES: Final[Mapping[str, tuple[str, str]]] = {
    "bf16": ("BF16", "bfloat16"),
    "fp16": ("F16", "float16"),
    "fp32": ("F32", "float32"),
}
"""The names here → safetensors' and torch's."""

_CASTABLE: Final = frozenset({"BF16", "F16", "F32", "F64"})
_KEYS: Final = ("torch_dtype", "dtype")  # the older name in config.json, and the newer


@dataclass(frozen=True, slots=True)
class Cast:
    """A conversion (see stream.py) that rounds every floating-point tensor to `dtype`."""

    dtype: str
    rows_together: ClassVar[int] = 1

    @classmethod
    def to(cls, dtype: str) -> Cast:
        """Raises `SchemeError` for a type that is none of bf16, fp16, fp32."""
        if dtype not in DTYPES:
            raise SchemeError(f"There is no dtype {dtype!r} to cast to. Choose one of: {', '.join(DTYPES)}.")
        return cls(dtype)

    def layout(self, name: str, spec: TensorSpec) -> Mapping[str, TensorSpec] | None:
        stored = DTYPES[self.dtype][0]
        return None if spec.dtype not in _CASTABLE or spec.dtype == stored else {name: TensorSpec(stored, spec.shape)}

    def convert(self, name: str, rows: torch.Tensor) -> Mapping[str, torch.Tensor]:
        cast = rows.to(getattr(torch, DTYPES[self.dtype][1]))
        if cast.numel() and not all(bool(end.isfinite()) for end in torch.aminmax(cast)):
            raise SourceError(f"{name} holds values beyond the range of {self.dtype}. Cast to bf16 or fp32 instead.")
        return {name: cast}

    def config(self, checkpoint: Checkpoint) -> dict[str, Any]:
        """config.json with the new type, wherever it names one."""
        config = _renamed(checkpoint.config, DTYPES[self.dtype][1])
        return config if any(key in config for key in _KEYS) else {**config, "dtype": DTYPES[self.dtype][1]}


def _renamed(section: Mapping[str, Any], dtype: str) -> dict[str, Any]:
    """The section, and the models inside it (`text_config`), with `dtype` where a type was named."""
    return {
        key: dtype if key in _KEYS else _renamed(value, dtype) if isinstance(value, dict) else value
        for key, value in section.items()
    }
