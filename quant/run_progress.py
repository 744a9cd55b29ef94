"""Progress bars of `quant run`, on stderr and only on a terminal."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn, TransferSpeedColumn

__all__ = ["Bars", "progress_bars"]


class Bars:
    """One bar a variant."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    @contextlib.contextmanager
    def bar(self, name: str, size: int, *, steady: bool) -> Iterator[Callable[[int], None]]:
        """Yields what is told the bytes that are done; `steady`: they will be told, else the bar only moves."""
        task = self._progress.add_task(name, total=size if steady else None)
        yield lambda done: self._progress.update(task, advance=done)
        self._progress.update(task, total=size, completed=size)


@contextlib.contextmanager
def progress_bars() -> Iterator[Bars]:
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        yield Bars(progress)
