"""The safetensors format: headers read alone, files written block by block.

A file is 8 bytes little-endian header length, a JSON header {name: {dtype, shape, data_offsets}}, and the data.
Source: safetensors, README, "Format". Writing needs every dtype and shape beforehand, but only a few rows in memory.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import torch

from quant.errors import SourceError
from server.errors import CheckpointError
from server.models.safetensors_file import DTYPE_BITS, read_shard

__all__ = ["TensorFile", "TensorSpec", "read_header"]

_LENGTH_BYTES: Final = 8
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
        return math.prod(self.shape) * DTYPE_BITS[self.dtype] // 8

    @property
    def rows(self) -> int:
        """Length of the first dimension; a number alone is one row."""
        return self.shape[0] if self.shape else 1

    @property
    def torch_dtype(self) -> torch.dtype:
        """`torch.bfloat16` for "BF16"; KeyError for a type that is not handled here."""
        return _TORCH_DTYPE[self.dtype]


def read_header(path: Path) -> dict[str, TensorSpec]:
    """Every tensor's spec, in the order of the data. Raises `SourceError` for a file that is broken or cut short."""
    try:
        shard = read_shard(path)
    except CheckpointError as exc:
        raise SourceError(str(exc)) from exc
    found = sorted(shard.tensors.values(), key=lambda tensor: (tensor.begin, tensor.size_bytes))
    for tensor in found:
        if tensor.dtype not in _TORCH_DTYPE:
            raise SourceError(f"{path}: tensor {tensor.name!r} is stored as {tensor.dtype}, which is not handled here.")
    return {tensor.name: TensorSpec(tensor.dtype, tensor.shape) for tensor in found}


class TensorFile:
    """A safetensors file that is being written, rows of its tensors in any order, by any thread."""

    def __init__(self, path: Path, specs: Mapping[str, TensorSpec]) -> None:
        """Create the file in its full length; a disk that cannot hold it raises `OSError`, here or at a write."""
        header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        end = 0
        for name, spec in specs.items():
            header[name] = {"dtype": spec.dtype, "shape": spec.shape, "data_offsets": [end, end := end + spec.size]}
        encoded = json.dumps(header, separators=(",", ":")).encode()
        encoded += b" " * (-len(encoded) % _LENGTH_BYTES)
        self._specs = specs
        self._starts = {name: _LENGTH_BYTES + len(encoded) + header[name]["data_offsets"][0] for name in specs}
        self._file = path.open("xb", buffering=0)
        try:
            self._file.truncate(_LENGTH_BYTES + len(encoded) + end)
            self._put(len(encoded).to_bytes(_LENGTH_BYTES, "little") + encoded, 0)
        except OSError:
            self._file.close()
            raise

    def write(self, name: str, rows: torch.Tensor, first_row: int = 0) -> None:
        """Put `rows` (of the tensor's type and of its shape but for the first dimension) at `first_row`."""
        spec = self._specs[name]
        fits = rows.shape[1:] == spec.shape[1:] and first_row + (rows.shape[0] if rows.ndim else 1) <= spec.rows
        if rows.dtype != spec.torch_dtype or not fits:
            raise ValueError(f"{name}: {rows.dtype} {tuple(rows.shape)} at row {first_row} was planned as {spec}")
        row_bytes = spec.size // spec.rows if spec.rows else 0
        self._put(_bytes_of(rows), self._starts[name] + first_row * row_bytes)

    def _put(self, data: bytes | memoryview, at: int) -> None:
        left = memoryview(data)
        while left:
            written = os.pwrite(self._file.fileno(), left, at)
            left, at = left[written:], at + written

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def _bytes_of(tensor: torch.Tensor) -> memoryview:
    return memoryview(tensor.contiguous().flatten().view(torch.uint8).numpy())
