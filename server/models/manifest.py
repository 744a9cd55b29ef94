"""How a variant was made: the `manifest.json` beside its weights.

    {
      "schema": 1,
      "name": "demo-int4",                  the variant's name in its recipe, and its folder's
      "method": "rtn",                      cast, rtn, gptq, awq, …
      "scheme": "w4a16" | null,             null: the method has no schemes (cast)
      "options": {"group_size": 128, …},    as the recipe gave them, defaults filled in
      "tier": "own" | "llm-compressor",
      "tools": {"wattgate": "0.1.0", "torch": "2.13.0+cpu", …},
      "key": "9f2c…",                       of source, method, scheme, options and tool versions: the cache's
      "recipe": "demo.yaml" | null,         the recipe's file name
      "source": {"name": "demo",
                 "weights_sha256": "…",         of the one weight file; of lines "digest  name" if there are several
                 "size_bytes": 8665720},        all weight files
      "files": {"model.safetensors": {"sha256": "…", "size_bytes": 4713208}, …},   everything but the manifest itself
      "seconds": 0.41,                      to make it, its digests included
      "peak_memory_bytes": 312000000 | null,    anonymous memory of the process that made it, at its largest
      "joules": 12.3 | null,                null: no meter was there, or its counter is too coarse for so short a time
      "energy_meter": "rapl" | "control" | null,
      "made_at": "2026-11-21T19:00:00Z"
    }

Unknown keys are ignored, so that later versions can add some.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from server.models.document import Document, read_document

__all__ = ["MANIFEST_FILE", "SCHEMA", "Manifest", "read_manifest"]

MANIFEST_FILE: Final = "manifest.json"
SCHEMA: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """The file's keys, by their names there."""

    name: str
    method: str
    scheme: str | None
    options: Mapping[str, Any]
    tier: str
    tools: Mapping[str, Any]
    key: str
    recipe: str | None
    source: Mapping[str, Any]
    files: Mapping[str, Any]
    seconds: float | None
    peak_memory_bytes: int | None
    joules: float | None
    energy_meter: str | None
    made_at: str | None

    def to_json(self) -> dict[str, Any]:
        return {"schema": SCHEMA, **{name: getattr(self, name) for name in self.__slots__}}


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a variant's folder; None if it has none. Raises `CheckpointError` for one that is broken."""
    path = folder / MANIFEST_FILE
    if not path.is_file():
        return None
    found = read_document(path)
    if found.integer("schema") != SCHEMA:
        raise found.wrong("schema", f"{SCHEMA}, the version known here")
    return Manifest(
        name=_text(found, "name"),
        method=_text(found, "method"),
        scheme=found.text("scheme"),
        options=_object(found, "options"),
        tier=_text(found, "tier"),
        tools=_object(found, "tools"),
        key=_text(found, "key"),
        recipe=found.text("recipe"),
        source=_object(found, "source"),
        files=_object(found, "files"),
        seconds=found.number("seconds"),
        peak_memory_bytes=found.integer("peak_memory_bytes"),
        joules=found.number("joules"),
        energy_meter=found.text("energy_meter"),
        made_at=found.text("made_at"),
    )


def _text(found: Document, key: str) -> str:
    text = found.text(key)
    if text is None:
        raise found.wrong(key, "a text")
    return text


def _object(found: Document, key: str) -> Mapping[str, Any]:
    if found.child(key) is None:
        raise found.wrong(key, "an object")
    value: Mapping[str, Any] = found.raw(key)
    return value
