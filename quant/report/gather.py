"""Folders → one row each, from config, headers, quality.json and manifest.json."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from quant.errors import SourceError
from quant.quality.weights_hash import weights_sha256
from quant.report.serving import refusals
from server.errors import CheckpointError
from server.models.card import ModelCard
from server.models.checkpoint import read_checkpoint
from server.models.manifest import read_manifest
from server.models.quality import QUALITY_FILE, Quality, read_qualities

__all__ = ["Making", "Row", "against", "gather", "reference_of"]

_PLAIN: Final = ("bf16", "fp16", "fp32")
"""Precisions that a reference may have, the best first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Making:
    """What it took, by its manifest; None is unknown."""

    method: str | None = None
    scheme: str | None = None
    seconds: float | None = None
    peak_memory_bytes: float | None = None
    joules: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One variant."""

    name: str
    folder: Path
    card: ModelCard
    qualities: Sequence[Quality]
    """Of the weights that are there; those of others are left out."""
    making: Making
    refused: Mapping[str, str | None]
    """By device: why it cannot be served there; None: it can."""
    weights_sha256: str | None
    base_weights_sha256: str | None
    """Of what its scores compare with; None: they do not say."""
    notes: Sequence[str]


def gather(folders: Sequence[Path], *, check_weights: bool = True) -> list[Row]:
    """A row a folder. Raises `SourceError` for one that is no checkpoint.

    Cost: headers; with `check_weights` every weight file is read once, to see whether its scores are still true of it.
    """
    return [_row(folder, check_weights) for folder in folders]


def reference_of(rows: Sequence[Row]) -> Row:
    """What sizes and quality are compared with: the bf16 variant, else fp16, fp32, else the first."""
    ranks = {precision: rank for rank, precision in enumerate(_PLAIN)}
    return min(rows, key=lambda row: ranks.get(row.card.precision, len(ranks)))


def against(rows: Sequence[Row], reference: Row) -> list[Row]:
    """The rows without scores that compare with other weights than the reference's."""
    return [_against(row, reference.weights_sha256) for row in rows]


def _against(row: Row, reference: str | None) -> Row:
    if None in (reference, row.base_weights_sha256) or row.base_weights_sha256 == reference:
        return row
    kept = [quality for quality in row.qualities if not quality.relative]
    note = "its losses are against another reference and are left out"
    return replace(row, qualities=kept, notes=[*row.notes, note])


def _row(folder: Path, check_weights: bool) -> Row:
    notes: list[str] = []
    try:
        checkpoint = read_checkpoint(folder)
    except CheckpointError as exc:
        raise SourceError(str(exc)) from exc
    digest = weights_sha256(folder) if check_weights else None
    said = _json(folder / QUALITY_FILE)
    return Row(
        name=folder.resolve().name,
        folder=folder,
        card=checkpoint.card,
        qualities=_qualities(folder, digest, said, notes),
        making=_making(folder, notes),
        refused=refusals(checkpoint),
        weights_sha256=digest,
        base_weights_sha256=_text(said, "base_weights_sha256"),
        notes=notes,
    )


def _qualities(folder: Path, digest: str | None, said: Mapping[str, Any], notes: list[str]) -> Sequence[Quality]:
    measured = _text(said, "weights_sha256")
    if digest is not None and measured is not None and measured != digest:
        notes.append("its scores are of other weights and are left out: run `quant evaluate … --fresh`")
        return ()
    try:
        return read_qualities(folder)
    except CheckpointError as exc:
        notes.append(str(exc))
        return ()


def _making(folder: Path, notes: list[str]) -> Making:
    try:
        manifest = read_manifest(folder)
    except CheckpointError as exc:
        notes.append(str(exc))
        return Making()
    if manifest is None:
        return Making()
    return Making(
        method=manifest.method,
        scheme=manifest.scheme,
        seconds=manifest.seconds,
        peak_memory_bytes=manifest.peak_memory_bytes,
        joules=manifest.joules,
    )


def _json(path: Path) -> Mapping[str, Any]:
    """An object; empty where there is none, or a broken file, which others complain of."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _text(found: Mapping[str, Any], key: str) -> str | None:
    value = found.get(key)
    return value if isinstance(value, str) else None
