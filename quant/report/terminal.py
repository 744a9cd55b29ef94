"""The report in a terminal: tables of at most 80 columns, and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from quant.report import words
from quant.report.gather import Row
from quant.report.losses import losses
from quant.report.serving import SHOWN
from quant.report.view import View
from server.models.quality import Quality

__all__ = ["as_json", "as_text"]

_NAME: Final = 16


def as_text(view: View) -> str:
    """The tables and what must be known to read them."""
    return "\n".join([*_sizes(view), "", *_making(view), "", *_serving(view), *_tasks(view), "", *_notes(view)])


def _sizes(view: View) -> Iterator[str]:
    yield f"{'':{_NAME}} {'MB':>7} {'bits':>5} {'perplexity':>10} {'KL, nats':>10} {'top-1':>9} {'MCR':>8}"
    for row in view.rows:
        found = losses(row, view.text)
        ratio, kl, top = (found.get(name) for name in ("perplexity_ratio", view.kl, "top1_agreement_ratio"))
        rate = view.rates[row.name]
        size, bits = row.card.size_bytes / 1e6, row.card.bits_per_weight
        yield (
            f"{view.mark(row)}{_cut(row.name, _NAME - 2):<{_NAME - 2}} {size:>7.4g} {bits:>5.2f}"
            f" {_percent(_value(ratio)):>10} {words.digits(_value(kl), 3):>10}"
            f" {words.digits(_value(top), 4):>9} {words.UNKNOWN if rate is None else f'{rate.value:.2f}':>8}"
        )
        intervals = [None if item is None else item.interval for item in (ratio, kl, top)]
        if any(intervals):
            low, high = (_bound_cells(intervals, side) for side in (0, 1))
            bounds = [None, None] if rate is None or rate.interval is None else [f"{x:.2f}" for x in rate.interval]
            for side, cells, last in (("from", low, bounds[0]), ("to", high, bounds[1])):
                yield f"{side:>{_NAME + 14}} {cells[0]:>10} {cells[1]:>10} {cells[2]:>9} {last or '':>8}".rstrip()


def _bound_cells(intervals: Sequence[Any], side: int) -> list[str]:
    """Of perplexity's ratio, KL, top-1."""
    ratio, kl, top = (None if interval is None else interval[side] for interval in intervals)
    return [
        "" if ratio is None else _percent(ratio),
        "" if kl is None else words.digits(kl, 3),
        "" if top is None else words.digits(top, 4),
    ]


def _making(view: View) -> Iterator[str]:
    yield f"{'':{_NAME}} {'method':<24} {'time':>9} {'peak memory':>12} {'energy':>9}"
    for row in view.rows:
        made = row.making
        how = " ".join(part for part in (made.method, made.scheme) if part) or words.UNKNOWN
        yield (
            f"  {_cut(row.name, _NAME - 2):<{_NAME - 2}} {_cut(how, 24):<24} {words.duration(made.seconds):>9}"
            f" {words.megabytes(made.peak_memory_bytes):>12} {words.energy(made.joules):>9}"
        )


def _serving(view: View) -> Iterator[str]:
    yield f"{'served on':{_NAME}} " + "".join(f"{device:>9}" for device in SHOWN)
    for row in view.rows:
        marks = "".join(f"{'no' if row.refused[device] else 'yes':>9}" for device in SHOWN)
        yield f"  {_cut(row.name, _NAME - 2):<{_NAME - 2}} {marks}"


def _tasks(view: View) -> Iterator[str]:
    scores = [(row, score) for row in view.rows for score in view.task_scores(row)]
    if scores:
        yield ""
    for row, score in scores:
        yield f"  {_cut(row.name, _NAME - 2):<{_NAME - 2}} {_cut(score.label, 36):<36} {words.span(score)}"


def _notes(view: View) -> Iterator[str]:
    yield f"Quality: {view.text_in_words()}."
    yield f"MCR = size₀ / size · perf / perf₀ against {view.reference.name}; bits: whole file, per weight."
    if view.axis is not None:
        yield f"* on the Pareto front of size and {words.title_of(view.axis)}."
    for row in view.rows:
        for note in row.notes:
            yield f"{row.name}: {note}"


def as_json(view: View) -> dict[str, Any]:
    """Everything, for programs."""
    return {
        "reference": view.reference.name,
        "quality": {"dataset": view.text[0], "path": view.text[1]} if view.text else None,
        "loss_axis": view.axis,
        "variants": [_row_json(row, view) for row in view.rows],
    }


def _row_json(row: Row, view: View) -> dict[str, Any]:
    rate, card, made = view.rates[row.name], row.card, row.making
    return {
        "name": row.name,
        "folder": str(row.folder),
        "precision": card.precision,
        "scheme": card.scheme,
        "size_bytes": card.size_bytes,
        "bits_per_weight": card.bits_per_weight,
        "linear_bits_per_weight": card.linear_bits_per_weight,
        "scores": [
            {"metric": q.metric, "dataset": q.dataset, "path": q.path, "value": q.value, "interval": q.interval}
            for q in row.qualities
        ],
        "mcr": None if rate is None else {"value": rate.value, "interval": rate.interval, "by": rate.by},
        "pareto": row.name in view.front if view.axis and view.point(row) else None,
        "made": {
            "method": made.method,
            "scheme": made.scheme,
            "seconds": made.seconds,
            "peak_memory_bytes": made.peak_memory_bytes,
            "joules": made.joules,
        },
        "refused": dict(row.refused),
        "notes": list(row.notes),
    }


def _value(score: Quality | None) -> float | None:
    return None if score is None else score.value


def _percent(ratio: float | None) -> str:
    return words.UNKNOWN if ratio is None else f"{100 * (ratio - 1):+.2f} %"


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"
