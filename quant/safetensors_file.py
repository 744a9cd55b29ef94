"""The safetensors format: headers read alone, files written as a stream.

A file is 8 bytes little-endian header length, a JSON header {name: {dtype, shape, data_offsets}}, and the data.
Source: safetensors, README, "Format". Writing needs every dtype and shape beforehand but only one tensor in memory.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch

from quant.errors import SourceError

__all__ = ["TensorSpec", "read_header", "write_file"]

_LENGTH_BYTES: Final = 8
_LONGEST_HEADER: Final = 100_000_000  # bytes; the format's own limit
_TORCH_DTYPE: Final[Mapping[str, torch.dtype]] = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I16": torch.int16,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I32": torch.int32,
    "F32": torch.float32,
    "I64": torch.int64,
    "F64": torch.float64,
}


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A tensor without its data."""

    dtype: str  # as safetensors writes it: "BF16"
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Bytes of the data."""
        itemsize: int = self.torch_dtype.itemsize
        return math.prod(self.shape) * itemsize

    @property
    def torch_dtype(self) -> torch.dtype:
        """`torch.bfloat16` for "BF16"; KeyError for a type that torch has not."""
        return _TORCH_DTYPE[self.dtype]


def read_header(path: Path) -> dict[str, TensorSpec]:
    """Every tensor's spec, in the order of the data. Raises `SourceError` for a file that is broken or cut short."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
            if not 2 <= length <= min(path.stat().st_size, _LONGEST_HEADER):
                raise ValueError(f"its header claims {length:,} bytes")
            header: dict[str, Any] = json.loads(file.read(length))
        header.pop("__metadata__", None)
        specs = {name: TensorSpec(entry["dtype"], tuple(entry["shape"])) for name, entry in _by_offset(header)}
        expected = _LENGTH_BYTES + length + sum(spec.size for spec in specs.values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
        raise SourceError(f"{path} is not a safetensors file: {exc}. Download or copy it again.") from exc
    if path.stat().st_size != expected:
        found = path.stat().st_size
        raise SourceError(f"{path} has {found:,} bytes instead of {expected:,}: it is cut short. Copy it again.")
    return specs


def write_file(path: Path, specs: Mapping[str, TensorSpec], tensors: Iterable[tuple[str, torch.Tensor]]) -> None:
    """Write `tensors`, which must come in the order of `specs` and have those dtypes and shapes."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, spec in specs.items():
        header[name] = {"dtype": spec.dtype, "shape": list(spec.shape), "data_offsets": [end, end := end + spec.size]}
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % _LENGTH_BYTES)
    with path.open("wb") as file:
        file.write(len(encoded).to_bytes(_LENGTH_BYTES, "little"))
        file.write(encoded)
        for (name, spec), (given, tensor) in zip(specs.items(), tensors, strict=True):
            if given != name or tuple(tensor.shape) != spec.shape or tensor.dtype != spec.torch_dtype:
                raise ValueError(f"{given}: {tensor.dtype} {tuple(tensor.shape)} is not what was planned for {name}")
            file.write(_bytes_of(tensor))


def _by_offset(header: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return sorted(header.items(), key=lambda item: item[1]["data_offsets"])


def _bytes_of(tensor: torch.Tensor) -> memoryview:
    return memoryview(tensor.contiguous().flatten().view(torch.uint8).numpy())
