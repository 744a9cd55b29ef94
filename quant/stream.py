"""Writes a converted checkpoint as a stream of blocks of rows.

Source files are mapped into memory, a block is a few hundred thousand values, and every block is read, converted and
written by one of a few threads: what is held does not grow with the model, nor with its largest matrix.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, Protocol

import torch

from quant.checkpoint import Checkpoint
from quant.errors import OutputError, SourceError
from quant.safetensors_file import TensorFile, TensorSpec

__all__ = ["Conversion", "Plans", "converted_size", "copied_files", "plan_files", "write_converted"]

BLOCK_VALUES: Final = 1 << 19  # 1 MB of bf16: large enough to hide an operation's start, small enough for caches
_MOST_THREADS: Final = 16
_COPIED: Final = ("*.json", "*.jinja", "*.model", "*.txt")
_NOT_COPIED: Final = frozenset({"config.json", "model.safetensors.index.json", "training.json", "manifest.json"})
_FLOATING: Final = frozenset({"BF16", "F16", "F32", "F64"})
_WHOLE_PART: Final = "weight_shape"  # says the matrix's shape, so no block can

Plans = Mapping[str, Mapping[str, Mapping[str, TensorSpec] | None]]
"""File → tensor → the tensors that replace it; None: it is copied."""


class Conversion(Protocol):
    """What becomes of each tensor of a checkpoint."""

    @property
    def rows_together(self) -> int:
        """Rows that must come in one block (see `Method`)."""

    def layout(self, name: str, spec: TensorSpec) -> Mapping[str, TensorSpec] | None:
        """The tensors that replace `name`, by their full names; None: it stays as it is. Raises a `QuantError`."""

    def convert(self, name: str, rows: torch.Tensor) -> Mapping[str, torch.Tensor]:
        """The rows of those tensors that come of `rows`, which are finite. Called by several threads."""

    def config(self, checkpoint: Checkpoint) -> dict[str, Any]:
        """The config.json of the result."""


def plan_files(checkpoint: Checkpoint, conversion: Conversion) -> Plans:
    """What will be written, by the headers alone. Raises a `QuantError` that names the tensor."""
    return {
        file: {name: conversion.layout(name, spec) for name, spec in specs.items()}
        for file, specs in checkpoint.files.items()
    }


def converted_size(checkpoint: Checkpoint, plans: Plans) -> int:
    """Bytes of all tensors that will be written."""
    return sum(spec.size for file in plans for spec in _outputs(checkpoint, plans, file).values())


def write_converted(
    checkpoint: Checkpoint, conversion: Conversion, folder: Path, advance: Callable[[int], None] = lambda _: None
) -> None:
    """Fill the empty `folder`; `advance` is told bytes of source that are done. Raises a `QuantError` or `OSError`."""
    plans = plan_files(checkpoint, conversion)
    _refuse_full_disk(folder, converted_size(checkpoint, plans))
    with _one_thread_an_operation(), ThreadPoolExecutor(_threads(), "quant") as pool:
        for file in checkpoint.files:
            _write_file(checkpoint, conversion, plans[file], folder / file, pool, advance)
    _write_index(folder, {file: _outputs(checkpoint, plans, file) for file in plans})
    _copy_rest(checkpoint.folder, folder)
    config = json.dumps(conversion.config(checkpoint), indent=2) + "\n"
    (folder / "config.json").write_text(config, encoding="utf-8")


def _outputs(checkpoint: Checkpoint, plans: Plans, file: str) -> dict[str, TensorSpec]:
    outputs: dict[str, TensorSpec] = {}
    for name, spec in checkpoint.files[file].items():
        replaced = plans[file][name]
        outputs |= {name: spec} if replaced is None else replaced
    return outputs


def _write_file(
    checkpoint: Checkpoint,
    conversion: Conversion,
    plan: Mapping[str, Mapping[str, TensorSpec] | None],
    path: Path,
    pool: ThreadPoolExecutor,
    advance: Callable[[int], None],
) -> None:
    outputs = _outputs(checkpoint, {path.name: plan}, path.name)
    with TensorFile(path, outputs) as file:
        jobs: list[tuple[int, Future[None]]] = []
        try:
            for name, tensor in checkpoint.tensors(path.name):
                block = _Block(file, conversion, name, checkpoint.files[path.name][name], plan[name])
                block.write_shape()
                for first, last in block.ranges():
                    jobs.append((block.bytes_of(first, last), pool.submit(block.write, tensor, first, last)))
            for size, job in jobs:
                job.result()
                advance(size)
        finally:
            for _, job in jobs:
                job.cancel()
            for _, job in jobs:  # none may write into a file that is closed
                with contextlib.suppress(BaseException):
                    job.result()


class _Block:
    """How blocks of one tensor's rows are written."""

    def __init__(
        self,
        file: TensorFile,
        conversion: Conversion,
        name: str,
        spec: TensorSpec,
        replaced: Mapping[str, TensorSpec] | None,
    ) -> None:
        self._file, self._conversion = file, conversion
        self._name, self._spec, self._replaced = name, spec, replaced

    def ranges(self) -> Iterator[tuple[int, int]]:
        """Blocks of about `BLOCK_VALUES` values, each a multiple of the rows that must stay together."""
        rows, together = self._spec.rows, self._conversion.rows_together
        wanted = BLOCK_VALUES // max(math.prod(self._spec.shape[1:]), 1)
        step = max(wanted // together, 1) * together
        for first in range(0, rows, step):
            yield first, min(first + step, rows)

    def bytes_of(self, first: int, last: int) -> int:
        return self._spec.size * (last - first) // self._spec.rows

    def write(self, tensor: torch.Tensor, first: int, last: int) -> None:
        rows = tensor[first:last] if self._spec.shape else tensor
        if self._spec.dtype in _FLOATING and rows.numel():
            self._refuse_not_finite(rows)
        if self._replaced is None:
            self._file.write(self._name, rows, first)
            return
        for part, values in self._conversion.convert(self._name, rows).items():
            if not part.endswith(_WHOLE_PART):
                self._file.write(part, values, first * self._replaced[part].rows // self._spec.rows)

    def write_shape(self) -> None:
        for part in self._replaced or ():
            if part.endswith(_WHOLE_PART):
                self._file.write(part, torch.tensor(self._spec.shape, dtype=torch.int64))

    def _refuse_not_finite(self, rows: torch.Tensor) -> None:
        if not all(bool(end.isfinite()) for end in torch.aminmax(rows)):
            raise SourceError(
                f"{self._name} holds NaN or infinite values. The checkpoint is broken: copy or train it again."
            )


@contextlib.contextmanager
def _one_thread_an_operation() -> Iterator[None]:
    """Blocks run beside one another; threads within an operation as well would only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _threads() -> int:
    return min(len(os.sched_getaffinity(0)), _MOST_THREADS)


def _refuse_full_disk(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OutputError(
            f"{folder.parent} has {free / 1e6:,.1f} MB free, and the variant takes {needed / 1e6:,.1f} MB. "
            "Make room or choose another output directory."
        )


def _write_index(folder: Path, files: Mapping[str, Mapping[str, TensorSpec]]) -> None:
    if set(files) == {"model.safetensors"}:
        return
    weight_map = {name: file for file, outputs in files.items() for name in outputs}
    total = sum(spec.size for outputs in files.values() for spec in outputs.values())
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _copy_rest(source: Path, folder: Path) -> None:
    """Tokenizer, chat template, generation settings; never what was measured of the source's quality."""
    for file in copied_files(source):
        shutil.copyfile(file, folder / file.name)


def copied_files(source: Path) -> list[Path]:
    """The files beside the weights that a variant takes over as they are."""
    found = {file for pattern in _COPIED for file in source.glob(pattern)}
    return sorted(file for file in found if file.name not in _NOT_COPIED and not file.name.startswith("quality."))
