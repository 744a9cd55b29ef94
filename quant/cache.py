"""Finished variants by what they were made of: DIRECTORY/KEY/.

A variant's own directory holds hard links to a cached one's files, so it takes no room twice; either may be removed.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any, Final

from quant.manifest import sha256_of
from quant.whole_directory import whole_directory
from server.errors import CheckpointError
from server.models.manifest import Manifest, read_manifest

__all__ = ["Cache", "is_whole"]

_DIGESTS: Final = "digests.json"


class Cache:
    """The directory is made when something is put into it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._digests = _read_digests(folder / _DIGESTS)

    def entry(self, key: str) -> Path:
        return self.folder / key[:32]

    def find(self, key: str) -> Manifest | None:
        """The manifest of a finished, undamaged variant; a damaged one is removed."""
        entry = self.entry(key)
        if not entry.is_dir():
            return None
        try:
            manifest = read_manifest(entry)
        except CheckpointError:
            manifest = None
        if manifest is not None and manifest.key == key and is_whole(entry, manifest):
            return manifest
        shutil.rmtree(entry, ignore_errors=True)
        return None

    def place(self, key: str, out: Path) -> None:
        """Make `out` of the cached variant; whole or absent. Raises `OutputError`."""
        with whole_directory(out) as folder:
            for file in sorted(self.entry(key).iterdir()):
                try:
                    os.link(file, folder / file.name)
                except OSError:  # another file system, or one without hard links
                    shutil.copyfile(file, folder / file.name)

    def digest(self, path: Path) -> str:
        """SHA-256; remembered for a file that has not changed since, by its size, time and inode."""
        stat = path.stat()
        seen = [stat.st_size, stat.st_mtime_ns, stat.st_ino]
        name = str(path.resolve())
        known = self._digests.get(name)
        if isinstance(known, dict) and known.get("seen") == seen and isinstance(known.get("sha256"), str):
            return str(known["sha256"])
        digest = sha256_of(path)
        self._digests[name] = {"seen": seen, "sha256": digest}
        return digest

    def remember_digests(self) -> None:
        """Keep what `digest` has learnt for the next run; a disk that refuses costs that run some seconds."""
        fresh = self.folder / f".{_DIGESTS}.{os.getpid()}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            fresh.write_text(json.dumps(self._digests), encoding="utf-8")
            fresh.replace(self.folder / _DIGESTS)
        except OSError:
            fresh.unlink(missing_ok=True)


def is_whole(entry: Path, manifest: Manifest) -> bool:
    """Whether every file is there, by the sizes: a disk that lies about content is not looked for."""
    return all(
        (entry / name).is_file() and (entry / name).stat().st_size == facts.get("size_bytes")
        for name, facts in manifest.files.items()
    )


def _read_digests(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
