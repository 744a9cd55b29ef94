"""Remembers which adapters are wanted, and keeps copies of their files."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

from server.errors import CheckpointError

__all__ = ["AdapterStore", "Wanted"]

_BLOCK: Final = 1 << 20
_DIGEST_CHARS: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """An adapter that somebody wants loaded."""

    name: str
    model: str
    path: str
    """Where it was taken from."""
    variants: tuple[str, ...] | None
    """Only on these; None: wherever it can be."""
    source: Literal["config", "runtime"]
    digest: str | None
    """Of the files as they were when it was first wanted; None: not read yet."""


class AdapterStore:
    """`adapters.json` and the copies beside it.

    What was loaded at run time stays wanted until it is unloaded. Unloading an adapter of the configuration lasts as
    long as the launcher lives: after the next `wattgate up` the configuration is right again.
    """

    def __init__(self, state_dir: Path, launcher: str) -> None:
        """`launcher` names the launcher's life (process id and start)."""
        self._file = state_dir / "adapters.json"
        self._copies = state_dir / "adapters"
        self._launcher = launcher

    def read(self) -> tuple[list[Wanted], frozenset[str]]:
        """What was loaded at run time, and the names of the configuration's adapters that were unloaded."""
        try:
            data = json.loads(self._file.read_text(encoding="utf-8"))
            loaded = [_wanted(entry) for entry in data["loaded"]]
            removed = frozenset(data["removed"]) if data["launcher"] == self._launcher else frozenset[str]()
        except FileNotFoundError:
            return [], frozenset()
        except (ValueError, KeyError, TypeError) as exc:
            raise CheckpointError(
                f"{self._file} is broken ({exc}). Remove it: loaded adapters must be loaded again."
            ) from exc
        return loaded, removed

    def write(self, loaded: Iterable[Wanted], removed: Iterable[str]) -> None:
        entries = [asdict(wanted) for wanted in loaded]
        data = {"launcher": self._launcher, "loaded": entries, "removed": sorted(removed)}
        self._file.parent.mkdir(parents=True, exist_ok=True)
        fresh = self._file.with_suffix(".new")
        fresh.write_text(json.dumps(data, indent=2), encoding="utf-8")
        fresh.replace(self._file)

    def copy_of(self, wanted: Wanted) -> Path:
        """Where the copy lies; engines load that, so later edits of the original change nothing.

        The path names the content, because vLLM's prefix cache is keyed by the adapter's name and path.
        """
        assert wanted.digest is not None
        return self._copies / f"{re.sub(r'[^A-Za-z0-9._-]', '_', wanted.name)}-{wanted.digest[:_DIGEST_CHARS]}"

    def keep(self, name: str, source: Path) -> str:
        """Copy an adapter's files, unless that very content is kept already; its digest."""
        try:
            digest = _digest(source)
            target = self._copies / f"{re.sub(r'[^A-Za-z0-9._-]', '_', name)}-{digest[:_DIGEST_CHARS]}"
            if not target.is_dir():
                fresh = target.with_name(f"{target.name}.new")
                shutil.rmtree(fresh, ignore_errors=True)
                fresh.mkdir(parents=True)
                for file in _files(source):
                    shutil.copyfile(file, fresh / file.name)
                fresh.rename(target)
        except OSError as exc:
            raise CheckpointError(f"The adapter {source} cannot be copied: {exc}.") from exc
        return digest

    def prune(self, wanted: Iterable[Wanted]) -> None:
        """Remove the copies that nobody wants. Only at start: engines read the files of what they hold later, too."""
        kept = {self.copy_of(entry) for entry in wanted if entry.digest is not None}
        if not self._copies.is_dir():
            return
        for folder in self._copies.iterdir():
            if folder not in kept:
                with contextlib.suppress(OSError):
                    shutil.rmtree(folder)


def _wanted(entry: dict[str, Any]) -> Wanted:
    variants = entry["variants"]
    return Wanted(**{**entry, "variants": None if variants is None else tuple(variants)})


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.is_file() and not file.name.startswith("."))


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for file in _files(folder):
        digest.update(f"{file.name}\0{file.stat().st_size}\0".encode())
        with file.open("rb") as content:
            while block := content.read(_BLOCK):
                digest.update(block)
    return digest.hexdigest()
