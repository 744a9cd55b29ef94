"""What is known of each engine's model, and does not change while it runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from server.errors import CheckpointError
from server.models.card import ModelCard
from server.models.quality import Quality, read_qualities
from server.models.work_model import WorkModel, work_model

__all__ = ["EngineFacts", "engine_facts"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFacts:
    """One engine's; None is unknown."""

    work: WorkModel | None = None
    dtype: str | None = None
    """The engine's option; None: as the checkpoint says."""
    qualities: tuple[Quality, ...] = ()
    quality_problem: str | None = None
    """Why the file with the scores cannot be read."""


def engine_facts(
    card: ModelCard | None, folder: Path | None, *, dtype: str | None = None, kv_cache_dtype: str | None = None
) -> EngineFacts:
    """Of the checkpoint in `folder` as an engine with these options serves it; reads `quality.json`, if it is there."""
    qualities: tuple[Quality, ...] = ()
    problem = None
    try:
        qualities = () if folder is None else read_qualities(folder)
    except CheckpointError as exc:
        problem = str(exc)
    return EngineFacts(
        work=None if card is None else work_model(card, dtype=dtype, kv_cache_dtype=kv_cache_dtype),
        dtype=dtype,
        qualities=qualities,
        quality_problem=problem,
    )
