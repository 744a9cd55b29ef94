"""Progress of named things: a moving display in a terminal, a line a change in a log."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

__all__ = ["Board"]


class Board:
    """One stage of the demo. `show` says what a thing is doing now; what is `done` stops its clock."""

    def __init__(self, console: Console, title: str) -> None:
        self._console = console
        self._title = title
        self._started = time.monotonic()
        self._shown: dict[str, str] = {}
        self._tasks: dict[str, TaskID] = {}
        moving = console.is_terminal and not console.is_dumb_terminal
        self._progress = (
            Progress(
                SpinnerColumn(finished_text="[green]✓[/]"),
                TextColumn("{task.description}", justify="left"),
                TextColumn("{task.fields[text]}", style="dim"),
                TimeElapsedColumn(),
                console=console,
            )
            if moving
            else None
        )

    def __enter__(self) -> Self:
        self._console.print(f"[bold]{self._title}[/]")
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()

    def show(self, name: str, text: str, *, done: bool = False) -> None:
        if self._shown.get(name) == text:
            return
        self._shown[name] = text
        if self._progress is None:
            seconds = time.monotonic() - self._started
            self._console.print(f"  {seconds:5.1f} s  {name}: {text}", markup=False, highlight=False)
            return
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(name, total=1, text=text)
        self._progress.update(self._tasks[name], text=text, completed=1 if done else 0)
