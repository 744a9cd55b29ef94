"""quality.json beside a checkpoint: read, refused, merged, written. Schema: server/models/quality.py."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from quant.errors import OutputError
from server.errors import CheckpointError
from server.models.quality import QUALITY_FILE, read_qualities

__all__ = ["check_store", "store_scores"]


def check_store(folder: Path, digests: Mapping[str, str]) -> None:
    """Raise `OutputError` if scores of other weights lie there; before hours of measuring, not after.

    `digests`: `weights_sha256`, and `base_weights_sha256` where scores compare with a reference.
    """
    for key, digest in digests.items():
        there = _read(folder).get(key, digest)
        if there != digest:
            whose = "this checkpoint's" if key == "weights_sha256" else "the reference's"
            raise OutputError(
                f"{folder / QUALITY_FILE} was measured when {whose} weights were others ({str(there)[:12]}…, now "
                f"{digest[:12]}…). Give --fresh to replace all its scores, or remove the file."
            )


def store_scores(
    folder: Path, scores: Sequence[Mapping[str, Any]], digests: Mapping[str, str], more: Mapping[str, Any], fresh: bool
) -> Path:
    """Write `scores` over those of the same metric, data and path; the rest stays, unless `fresh`.

    Scores in a file that does not say which weights they are of are not kept. The file is whole or as it was.
    Raises `OutputError`.
    """
    if not fresh:
        check_store(folder, digests)
    there = {} if fresh else _read(folder)
    kept = there.get("scores", []) if "weights_sha256" in there else []
    new = {_key(score) for score in scores}
    merged = [*scores, *(score for score in kept if _key(score) not in new)]
    content = {**there, "scores": merged, **digests, **more}
    path = folder / QUALITY_FILE
    _write(path, json.dumps(content, indent=2) + "\n")
    return path


def _key(score: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(score.get(name) for name in ("metric", "dataset", "path"))


def _read(folder: Path) -> dict[str, Any]:
    try:
        read_qualities(folder)
    except CheckpointError as exc:
        raise OutputError(f"{exc} Or give --fresh.") from exc
    path = folder / QUALITY_FILE
    content: dict[str, Any] = json.loads(path.read_bytes()) if path.exists() else {}
    return content


def _write(path: Path, text: str) -> None:
    """A sibling first, then its name: a reader sees the old file or the new one."""
    part: Path | None = None
    try:
        with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            part = Path(file.name)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        part.chmod(0o644)
        part.replace(path)
    except OSError as exc:
        if part is not None:
            part.unlink(missing_ok=True)
        raise OutputError(f"{path} could not be written: {exc.strerror or exc}. Check disk and permissions.") from exc
