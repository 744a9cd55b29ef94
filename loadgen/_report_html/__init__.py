"""report.html: one self-contained page of a run, or of a comparison.

_scale.py   axes and their round numbers      _chart.py   SVG: lines, points, intervals
_page.py    the page around them; its style   _folder.py  what a run's folder holds, as far as it is there
_run.py     the page of one run               _curve.py   rate and latency, where a run has several rates

The page of a comparison is made in loadgen/_compare/_html.py of the same parts.
"""

from __future__ import annotations

from pathlib import Path

from loadgen._report_html._folder import read_folder
from loadgen._report_html._run import page
from loadgen._whole_file import write_whole

__all__ = ["REPORT", "write_html"]

REPORT = "report.html"


def write_html(folder: Path) -> Path:
    """Write `folder/report.html` of what else lies in `folder`; what is missing there is left out. Raises `OSError`."""
    report = folder / REPORT
    write_whole(report, [page(read_folder(folder))])
    return report
