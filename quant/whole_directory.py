"""An output directory that is whole or absent."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from quant.errors import OutputError

__all__ = ["whole_directory"]


@contextlib.contextmanager
def whole_directory(path: Path) -> Iterator[Path]:
    """A fresh sibling to write into; it becomes `path` when the block ends well and vanishes when it does not.

    Raises `OutputError` if `path` exists already (nothing is ever overwritten) or the disk refuses.
    """
    if path.exists():
        raise OutputError(f"{path} exists already. Remove it or choose another output directory.")
    partial: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{path.name}.partial-", dir=path.parent))
        yield partial
        _settle(partial)
        partial.rename(path)
        _sync(path.parent)
    except OSError as exc:
        reason = exc.strerror or str(exc)
        raise OutputError(f"{path} could not be written: {reason}. Check its disk and permissions.") from exc
    finally:
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)


def _settle(folder: Path) -> None:
    """Give everything ordinary permissions (some writers make private files) and put every byte on the disk."""
    umask = os.umask(0)
    os.umask(umask)
    folder.chmod(0o777 & ~umask)
    for file in folder.iterdir():
        file.chmod(0o666 & ~umask)
        _sync(file)
    _sync(folder)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
