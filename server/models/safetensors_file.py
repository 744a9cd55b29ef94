"""Reads the header of a safetensors file, and nothing behind it.

The file is: uint64 little-endian n; n bytes of JSON `{name: {"dtype", "shape", "data_offsets": [begin, end]}}`, with an
optional `__metadata__`; then the tensors' bytes without a hole, offsets counted from the end of the header.
Source: the format's description, github.com/huggingface/safetensors, "Format".
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeGuard

from server.errors import CheckpointError
from server.models.document import parse_object
from server.units import Bytes

__all__ = ["DTYPE_BITS", "Shard", "Tensor", "read_int64s", "read_shard"]

DTYPE_BITS: Final[Mapping[str, int]] = {
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
    "I32": 32, "U32": 32, "F32": 32,
    "I64": 64, "U64": 64, "F64": 64, "C64": 64,
}  # fmt: skip

_LENGTH: Final = struct.Struct("<Q")
_MAX_HEADER_BYTES: Final = 100_000_000
"""What the reference implementation accepts."""
_FEW: Final = 16
_AGAIN: Final = "Export or download it again."


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """One tensor as the header describes it."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    """From the start of the file."""
    size_bytes: int
    path: Path

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """One file and what its header says."""

    path: Path
    size_bytes: Bytes
    tensors: Mapping[str, Tensor]


def read_shard(path: Path) -> Shard:
    """Read and check a header: every offset lies in the file, every tensor has the bytes that its shape needs.

    Raises `CheckpointError` for everything that the reference implementation would refuse to load.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: there is no such file. {_AGAIN}")
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = _header_length(file.read(_LENGTH.size), size, path)
            text = file.read(length)
    except OSError as exc:
        raise CheckpointError(f"{path}: cannot be read ({exc.strerror or exc}). Check its rights.") from exc
    header = parse_object(text, path, "the safetensors header")
    start = _LENGTH.size + length
    tensors = {
        name: _tensor(name, entry, start, size, path) for name, entry in header.items() if name != "__metadata__"
    }
    _refuse_holes(tensors, start, size, path)
    return Shard(path=path, size_bytes=Bytes(size), tensors=tensors)


def read_int64s(tensor: Tensor) -> tuple[int, ...]:
    """The values of a small integer tensor (a packed weight's `weight_shape`)."""
    if tensor.dtype != "I64" or tensor.elements > _FEW:
        raise CheckpointError(
            f"{tensor.path}: tensor {tensor.name!r} is {tensor.dtype} {list(tensor.shape)}, "
            f"expected a few I64. {_AGAIN}"
        )
    try:
        with tensor.path.open("rb") as file:
            file.seek(tensor.begin)
            return struct.unpack(f"<{tensor.elements}q", file.read(tensor.size_bytes))
    except (OSError, struct.error) as exc:
        raise CheckpointError(f"{tensor.path}: tensor {tensor.name!r} cannot be read ({exc}). {_AGAIN}") from exc


def _header_length(prefix: bytes, size: int, path: Path) -> int:
    if len(prefix) < _LENGTH.size:
        raise CheckpointError(f"{path}: has {size} bytes, too few for a safetensors file. {_AGAIN}")
    (length,) = _LENGTH.unpack(prefix)
    room = min(size - _LENGTH.size, _MAX_HEADER_BYTES)
    if length > room:
        raise CheckpointError(
            f"{path}: claims a header of {length} bytes where at most {room} are possible; "
            f"it is truncated or no safetensors file. {_AGAIN}"
        )
    return int(length)


def _tensor(name: str, entry: Any, start: int, size: int, path: Path) -> Tensor:
    def broken(what: str) -> CheckpointError:
        return CheckpointError(f"{path}: tensor {name!r} {what}. {_AGAIN}")

    if not isinstance(entry, dict):
        raise broken("is not described by an object")
    dtype, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
        raise broken("has an unknown dtype")
    if not _are_counts(shape):
        raise broken("has no valid `shape`")
    if not _are_counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise broken("has no valid `data_offsets`")
    begin, end = offsets
    if start + end > size:
        raise broken(f"ends at byte {start + end}, but the file has {size}: it is truncated")
    if math.prod(shape) * DTYPE_BITS[dtype] != (end - begin) * 8:
        raise broken(f"has {end - begin} bytes, which is not what its shape {shape} and dtype {dtype} need")
    return Tensor(name=name, dtype=dtype, shape=tuple(shape), begin=start + begin, size_bytes=end - begin, path=path)


def _are_counts(value: Any) -> TypeGuard[list[int]]:
    """A list of non-negative 64-bit integers, not absurdly many of them."""
    return (
        isinstance(value, list)
        and len(value) <= 16
        and all(isinstance(item, int) and not isinstance(item, bool) and 0 <= item < 2**63 for item in value)
    )


def _refuse_holes(tensors: Mapping[str, Tensor], start: int, size: int, path: Path) -> None:
    at = start
    for tensor in sorted(tensors.values(), key=lambda tensor: (tensor.begin, tensor.size_bytes)):
        if tensor.begin != at:
            raise CheckpointError(f"{path}: tensor {tensor.name!r} overlaps another or leaves a hole. {_AGAIN}")
        at += tensor.size_bytes
    if at != size:
        raise CheckpointError(f"{path}: has {size - at} bytes behind its last tensor. {_AGAIN}")
