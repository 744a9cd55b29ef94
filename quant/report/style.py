"""The page's colours and shapes, light and dark."""

from __future__ import annotations

from typing import Final

__all__ = ["STYLE"]

STYLE: Final = """
:root { color-scheme: light dark; --page: #fbfbfa; --card: #ffffff; --ink: #1d232b; --soft: #5c6672; --rule: #dfe3e8;
  --front: #0b62c4; --off: #8a939e; --yes: #1b7f4b; --no: #a2321f; }
@media (prefers-color-scheme: dark) { :root { --page: #12161b; --card: #1a2027; --ink: #e6eaef; --soft: #9aa5b1;
  --rule: #2e3741; --front: #6db3ff; --off: #7c8793; --yes: #5fd39a; --no: #ff9a85; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 28px 18px 60px; }
h1 { font-size: 1.5rem; margin: 0 0 4px; letter-spacing: -.01em; }
h2 { font-size: 1.05rem; margin: 34px 0 10px; }
p { margin: 6px 0; max-width: 70ch; }
.soft, figcaption, th, small { color: var(--soft); }
figure { margin: 18px 0 0; padding: 14px 12px 10px; background: var(--card); border: 1px solid var(--rule);
  border-radius: 8px; max-width: 640px; }
figcaption { font-size: .85rem; margin-top: 6px; }
svg { display: block; width: 100%; height: auto; font: 13px system-ui, sans-serif; }
svg .grid { stroke: var(--rule); stroke-width: 1; }
svg .axis { stroke: var(--soft); stroke-width: 1; }
svg text { fill: var(--ink); }
svg .tick { fill: var(--soft); font-size: 12px; }
svg .title { fill: var(--soft); }
svg circle.on { fill: var(--front); }
svg circle.off { fill: var(--card); stroke: var(--off); stroke-width: 2; }
svg .whisker, svg .front { fill: none; stroke: var(--front); stroke-width: 1.5; }
svg .whisker.off { stroke: var(--off); }
svg .front { stroke-dasharray: 5 4; opacity: .7; }
svg .label { paint-order: stroke; stroke: var(--card); stroke-width: 3px; }
svg .label.off { fill: var(--soft); }
.scroll { overflow-x: auto; background: var(--card); border: 1px solid var(--rule); border-radius: 8px; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: 8px 12px; text-align: right; white-space: nowrap; vertical-align: top;
  border-bottom: 1px solid var(--rule); }
tbody tr:last-child td, tbody tr:last-child th { border-bottom: 0; }
thead th { font-weight: 500; font-size: .85rem; }
th[scope=row], td.text, thead th.text { text-align: left; }
th[scope=row] { color: var(--ink); font-weight: 600; position: sticky; left: 0; background: var(--card); }
td small { display: block; font-size: .8rem; }
.star { color: var(--front); }
.yes { color: var(--yes); }
.no { color: var(--no); }
td.mark { text-align: center; }
details { margin: 8px 0; }
summary { cursor: pointer; color: var(--soft); }
"""
