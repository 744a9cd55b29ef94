"""One HTML page that needs nothing else: no script, no font, no request; light and dark."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from loadgen._report_html._chart import Chart, svg

__all__ = ["card", "chart_card", "document", "paragraphs", "section", "table"]

_STYLE = """
:root{color-scheme:light dark;--bg:#f7f7f5;--card:#fff;--ink:#1d2125;--soft:#5f676e;--rule:#e2e3e0;--band:#e9ebe7;
--good:#0b7a4b;--bad:#b3261e;--s0:#0b62a8;--s1:#c2570c;--s2:#0b7a4b;--s3:#8d3c87;--s4:#8a6d00;--s5:#0f8390;--s6:#a62f4f;
--s7:#555e66}
@media (prefers-color-scheme:dark){:root{--bg:#15181b;--card:#1d2125;--ink:#e8eaec;--soft:#a2abb3;--rule:#33393f;
--band:#2a3036;--good:#4fc38a;--bad:#ff8a80;--s0:#6db3f2;--s1:#f2a25c;--s2:#4fc38a;--s3:#d292cf;--s4:#e0c04c;--s5:#5ccad6;
--s6:#f28ba5;--s7:#b4bcc4}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif}
main{max-width:1120px;margin:0 auto;padding:24px 16px 48px}
h1{font-size:1.5rem;margin:0 0 4px;overflow-wrap:anywhere}h2{font-size:1.1rem;margin:32px 0 10px}
h3{font-size:.95rem;margin:0 0 6px}p{margin:6px 0;max-width:75ch;overflow-wrap:anywhere}
.soft,.note{color:var(--soft)}.note{font-size:.85rem}.bad{color:var(--bad);font-weight:600}
.grid{display:grid;gap:14px;grid-template-columns:repeat(auto-fill,minmax(min(100%,430px),1fr))}
.card+.card{margin-top:14px}.grid .card+.card{margin-top:0}
.card{background:var(--card);border:1px solid var(--rule);border-radius:8px;padding:12px 14px;min-width:0}
.wide{overflow-x:auto}table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{padding:4px 10px 4px 0;text-align:right;border-bottom:1px solid var(--rule);white-space:nowrap}
th{color:var(--soft);font-weight:500;font-size:.85rem}th:first-child,td:first-child{text-align:left}
tr:last-child td{border-bottom:0}
.legend{display:flex;flex-wrap:wrap;gap:2px 14px;font-size:.82rem;color:var(--soft);margin-bottom:4px}
.legend i{display:inline-block;width:14px;height:0;border-top:3px solid;margin-right:5px;vertical-align:middle}
.legend i.d{border-top-style:dashed}
details{margin-top:10px}summary{cursor:pointer;color:var(--soft)}pre{overflow-x:auto;font-size:.8rem}
svg{width:100%;height:auto;display:block}svg text{font-size:12px;fill:var(--soft)}svg .label{fill:var(--ink)}
@media (max-width:520px){svg text{font-size:15px}}svg .grid{stroke:var(--rule)}svg .axis,svg .stub{stroke:var(--soft)}
svg .one{stroke:var(--ink);stroke-dasharray:3 3}
svg .band{fill:var(--band)}svg .line{fill:none;stroke-width:2;stroke-linejoin:round}svg .dot{stroke:var(--card)}
svg .bar line{stroke-width:2}svg .front{fill:none}
svg .bar.better{stroke:var(--good);fill:var(--good)}svg .bar.worse{stroke:var(--bad);fill:var(--bad)}
svg .bar.same{stroke:var(--ink);fill:var(--ink)}svg .bar.open{stroke:var(--soft);fill:var(--card)}
"""
_COLOURS = "".join(
    f"svg .line.s{n}{{stroke:var(--s{n})}}svg .dot.s{n}{{fill:var(--s{n})}}.legend .s{n}{{color:var(--s{n})}}"
    for n in range(8)
)


def document(title: str, subtitle: str, body: Iterable[str]) -> str:
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}{_COLOURS}</style></head>\n<body><main>"
        f'<h1>{escape(title)}</h1><p class="soft">{escape(subtitle)}</p>\n'
        + "\n".join(body)
        + "\n</main></body></html>"
    )


def section(title: str, parts: Sequence[str]) -> str:
    """Nothing where there is nothing to show."""
    return f"<h2>{escape(title)}</h2>\n" + "\n".join(parts) if parts else ""


def card(title: str, content: str) -> str:
    return f'<div class="card"><h3>{escape(title)}</h3>{content}</div>'


def paragraphs(lines: Iterable[str], *, style: str = "") -> str:
    css = f' class="{style}"' if style else ""
    return "".join(f"<p{css}>{escape(line)}</p>" for line in lines)


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(heading)}</th>" for heading in headings)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def chart_card(chart: Chart) -> str:
    """With a legend where there is more than one series."""
    names = {(one.name, one.colour % 8, one.dashed): None for one in chart.series if one.name and one.points}
    legend = "".join(
        f'<span><i class="s{colour}{" d" if dashed else ""}"></i>{escape(name)}</span>'
        for name, colour, dashed in names
    )
    legend = f'<div class="legend">{legend}</div>' if len(names) > 1 else ""
    note = paragraphs([chart.note], style="note") if chart.note else ""
    return card(chart.title, legend + svg(chart) + note)
