"""The behaviour matrix as Markdown: a row a probe, a column a gateway."""

from __future__ import annotations

from collections.abc import Mapping

from tests.benchmarks.document import markdown_table
from tests.benchmarks.probes.ground import Cell

__all__ = ["Matrix", "as_markdown"]

Matrix = dict[str, dict[str, Cell]]
"""Gateway → probe → cell."""


def as_markdown(matrix: Matrix, left_out: Mapping[str, str], run: str) -> str:
    """The table, with how many cells each gateway has right, and who is missing."""
    rows = list(dict.fromkeys(row for column in matrix.values() for row in column))
    score = ["right", *(f"{sum(cell.right for cell in column.values())}/{len(column)}" for column in matrix.values())]
    table = markdown_table(
        ["", *matrix], [*([row, *(_shown(column.get(row)) for column in matrix.values())] for row in rows), score]
    )
    return "\n\n".join([run, table, *(f"Left out: {name} ({why})." for name, why in left_out.items())])


def _shown(cell: Cell | None) -> str:
    if cell is None:
        return "–"  # noqa: RUF001  # as in the other tables
    return f"{'✓' if cell.right else '✗'} {cell.note}"
