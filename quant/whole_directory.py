"""An output directory that is whole or absent."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from quant.errors import OutputError

__all__ = ["remove_leftovers", "whole_directory"]


@contextlib.contextmanager
def whole_directory(path: Path) -> Iterator[Path]:
    """A fresh sibling to write into; it becomes `path` when the block ends well and vanishes when it does not.

    A process that is killed leaves its sibling behind; whoever writes beside it next removes it.
    Raises `OutputError` if `path` exists already (nothing is ever overwritten) or the disk refuses.
    """
    if path.exists():
        raise OutputError(f"{path} exists already. Remove it or choose another output directory.")
    with contextlib.ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            remove_leftovers(path.parent)
            partial = stack.enter_context(_locked_sibling(path))
            yield partial
            _settle(partial)
            partial.rename(path)
            _sync(path.parent)
        except OSError as exc:
            reason = exc.strerror or str(exc)
            raise OutputError(f"{path} could not be written: {reason}. Check its disk and permissions.") from exc


def remove_leftovers(folder: Path) -> list[Path]:
    """Remove what writers that are no more have left in `folder`; what is being written stays."""
    gone = []
    for partial in folder.glob(".*.partial-*"):
        with contextlib.suppress(OSError), _lock(partial, fcntl.LOCK_EX | fcntl.LOCK_NB):
            shutil.rmtree(partial)
            gone.append(partial)
    return gone


@contextlib.contextmanager
def _locked_sibling(path: Path) -> Iterator[Path]:
    """A new directory that is locked while it is written: the lock ends with the process, however that ends."""
    while True:
        partial = Path(tempfile.mkdtemp(prefix=f".{path.name}.partial-", dir=path.parent))
        try:
            with _lock(partial, fcntl.LOCK_EX):
                if partial.exists():  # else another took it for a leftover before it was locked
                    yield partial
                    return
        finally:
            shutil.rmtree(partial, ignore_errors=True)


@contextlib.contextmanager
def _lock(folder: Path, how: int) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, how)
        yield
    finally:
        os.close(descriptor)


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
