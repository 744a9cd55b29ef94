"""The report as one HTML file that needs nothing else: no script, no request."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from html import escape
from typing import Final

from quant.report import words
from quant.report.gather import Row
from quant.report.losses import losses
from quant.report.scatter import Point, scatter
from quant.report.serving import SHOWN
from quant.report.style import STYLE
from quant.report.view import View
from server.models.quality import Quality

__all__ = ["page"]

_LOSSES: Final = ("perplexity", "nll_change_nats", "kl", "top1_agreement_ratio", "flips_ratio", "net_flips_ratio")
"""The columns on quality; `kl` is the view's."""


def page(view: View) -> str:
    """The whole document."""
    title = f"Variants of {view.reference.name}"
    body = "".join(
        [
            f"<h1>{escape(title)}</h1>",
            f'<p class="soft">{escape(view.text_in_words())}. What is not known is a dash.</p>',
            _plot(view),
            _section("Size and quality", _sizes(view)),
            _section("Every loss", _all_losses(view)),
            _section("Task scores", _tasks(view)) if any(view.task_scores(row) for row in view.rows) else "",
            _section("Making", _making(view)),
            _section("Who can serve it", _serving(view)),
            *_refusals(view),
            _notes(view),
        ]
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body><main>{body}</main></body></html>\n"
    )


def _plot(view: View) -> str:
    points = [
        Point(
            name=row.name,
            x=row.card.size_bytes / 1e6,
            y=loss.value,
            interval=loss.interval,
            front=row.name in view.front,
        )
        for row in view.rows
        if (loss := view.point(row))
    ]
    if view.axis is None or len(points) < 2:
        return ""
    best = 1.0 if view.axis == "perplexity_ratio" else 0.0
    drawn = scatter(points, x_title="size, MB", y_title=words.title_of(view.axis), y_best=best)
    return (
        f"<figure>{drawn}<figcaption>Lower and further left is better. Filled: on the Pareto front, nothing is at "
        "least as good in both and better in one. Bars: 95 % intervals. The front follows the values; where intervals "
        "overlap, another text could draw it otherwise.</figcaption></figure>"
    )


def _section(title: str, rows: Iterable[str]) -> str:
    return f'<h2>{escape(title)}</h2><div class="scroll"><table>{"".join(rows)}</table></div>'


def _head(titles: Sequence[str], text: Sequence[str] = ()) -> str:
    cells = "".join(f"<th{' class=text' if title in text else ''}>{escape(title)}</th>" for title in titles)
    return f"<thead><tr><th class=text>variant</th>{cells}</tr></thead>"


def _line(row: Row, cells: Iterable[str], view: View) -> str:
    star = '<span class="star" title="on the Pareto front">★ </span>' if row.name in view.front else ""
    return f"<tr><th scope=row>{star}{escape(row.name)}</th>{''.join(cells)}</tr>"


def _cell(shown: str, below: str = "", kind: str = "") -> str:
    small = f"<small>{escape(below)}</small>" if below else ""
    return f"<td{f' class={kind}' if kind else ''}>{escape(shown)}{small}</td>"


def _sizes(view: View) -> Iterator[str]:
    kl = words.title_of(view.kl)
    yield _head(["size", "bits/weight", "linear layers", "perplexity", kl, "top-1", "MCR"])
    for row in view.rows:
        found, rate = losses(row, view.text), view.rates[row.name]
        ratio = found.get("perplexity_ratio")
        cells = [
            _cell(words.megabytes(row.card.size_bytes)),
            _cell(words.digits(row.card.bits_per_weight, 3)),
            _cell(words.digits(row.card.linear_bits_per_weight, 3)),
            _parted(words.change(ratio)),
            _parted(words.span(found.get(view.kl))),
            _parted(words.span(found.get("top1_agreement_ratio"), 4)),
            _parted(words.rate(rate)),
        ]
        yield _line(row, cells, view)


def _parted(shown: str) -> str:
    """`value [low, high]` on two lines."""
    value, bracket, interval = shown.partition(" [")
    return _cell(value, bracket.strip() + interval)


def _all_losses(view: View) -> Iterator[str]:
    metrics = [view.kl if name == "kl" else name for name in _LOSSES]
    yield _head([words.title_of(metric) for metric in metrics])
    for row in view.rows:
        found = losses(row, view.text)
        yield _line(row, (_parted(words.span(found.get(metric), 4)) for metric in metrics), view)


def _tasks(view: View) -> Iterator[str]:
    yield _head(["task", "score", "measured"], text=["task"])
    for row in view.rows:
        for score in view.task_scores(row):
            yield _line(row, _task_cells(score), view)


def _task_cells(score: Quality) -> list[str]:
    return [
        _cell(score.label, kind="text"),
        _parted(words.span(score)),
        _cell(score.measured_at or words.UNKNOWN),
    ]


def _making(view: View) -> Iterator[str]:
    yield _head(["method", "time", "peak memory", "energy"], text=["method"])
    for row in view.rows:
        made = row.making
        cells = [
            _cell(" ".join(part for part in (made.method, made.scheme) if part) or words.UNKNOWN, kind="text"),
            _cell(words.duration(made.seconds)),
            _cell(words.megabytes(made.peak_memory_bytes)),
            _cell(words.energy(made.joules)),
        ]
        yield _line(row, cells, view)


def _serving(view: View) -> Iterator[str]:
    heads = "".join(f"<th>{escape(name)}</th>" for name in SHOWN)
    yield f"<thead><tr><th class=text>variant</th><th class=text>scheme</th>{heads}</tr></thead>"
    for row in view.rows:
        scheme = row.card.scheme or row.card.precision
        marks = [
            '<td class="mark yes">yes</td>' if row.refused[name] is None else '<td class="mark no">no</td>'
            for name in SHOWN
        ]
        yield _line(row, [_cell(scheme, kind="text"), *marks], view)


def _refusals(view: View) -> Iterator[str]:
    said = {(row.name, why): device for row in view.rows for device, why in row.refused.items() if why is not None}
    if said:
        items = "".join(f"<p><strong>{escape(name)}</strong>: {escape(why)}</p>" for name, why in said)
        yield f"<details><summary>Why not, and what would work</summary>{items}</details>"


def _notes(view: View) -> str:
    rates = {rate.by for rate in view.rates.values() if rate is not None and rate.by != "itself"}
    lines = [
        f"MCR = (size₀ / size) · (perf / perf₀) against {view.reference.name}; perf is 1 / perplexity or a task score"
        + (f": here {', '.join(sorted(rates))}." if rates else "."),
        "Bits per weight count scales and zero points; embeddings often stay unquantized.",
        *(f"{row.name}: {note}" for row in view.rows for note in row.notes),
    ]
    return "<h2>Notes</h2>" + "".join(f'<p class="soft">{escape(line)}</p>' for line in lines)
