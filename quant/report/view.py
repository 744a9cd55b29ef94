"""The rows as every form of the report shows them: one reference, one text, one axis of loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from quant.errors import SourceError
from quant.report.gather import Row, against, gather, reference_of
from quant.report.losses import Compression, Loss, Text, compression, loss_axis, loss_of, pareto_front, text_of
from server.models.quality import Quality

__all__ = ["View", "view_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What is shown."""

    rows: Sequence[Row]
    reference: Row
    text: Text | None
    """On what losses were measured; None: they were not."""
    axis: str | None
    """The metric that stands for loss."""
    rates: Mapping[str, Compression | None]
    front: set[str]

    @property
    def kl(self) -> str:
        """The metric of the column KL."""
        return "kl_nats" if self.text is None or self.text[1] == "offline" else "kl_top20_nats"

    def point(self, row: Row) -> Loss | None:
        """Where it stands on the axis of loss; None: nowhere."""
        return None if self.axis is None else loss_of(row, self.reference, self.text, self.axis)

    def mark(self, row: Row) -> str:
        """Before its name."""
        return "* " if row.name in self.front else "  "

    def task_scores(self, row: Row) -> list[Quality]:
        """Those that are no perplexity and compare with nothing."""
        return [score for score in row.qualities if not score.relative and score.metric != "perplexity"]

    def text_in_words(self) -> str:
        """On what, how, and against what."""
        if self.text is None:
            return "nobody measured a loss; `quant evaluate VARIANT --reference BASE` does"
        windows = {score.window for row in self.rows for score in row.qualities if score.relative and score.window}
        how = {"offline": "offline", "served": "through running engines"}.get(self.text[1], self.text[1])
        of = f" in windows of {windows.pop()} tokens" if len(windows) == 1 else ""
        return f"{self.text[0]}{of}, {how}, 95 % intervals"


def view_of(folders: Sequence[Path], reference: Path | None, *, check_weights: bool) -> View:
    """Read the folders. Raises `SourceError`."""
    rows = gather(folders, check_weights=check_weights)
    base = reference_of(rows) if reference is None else _chosen(rows, reference)
    rows = against(rows, base)
    base = next(row for row in rows if row.folder == base.folder)
    names = {row.name for row in rows}
    if len(names) < len(rows):
        raise SourceError("Two of the folders have the same name. Rename one, so that the report can tell them apart.")
    text = text_of(rows)
    axis = loss_axis(rows, text)
    view = View(
        rows=rows,
        reference=base,
        text=text,
        axis=axis,
        rates={row.name: compression(row, base, text) for row in rows},
        front=set(),
    )
    points = [(row.name, float(row.card.size_bytes), loss.value) for row in rows if (loss := view.point(row))]
    return View(rows=rows, reference=base, text=text, axis=axis, rates=view.rates, front=pareto_front(points))


def _chosen(rows: Sequence[Row], reference: Path) -> Row:
    for row in rows:
        if row.folder.resolve() == reference.resolve():
            return row
    raise SourceError(f"{reference} is none of the folders. Give it as one of DIR as well.")
