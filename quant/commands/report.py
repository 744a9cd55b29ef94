"""`quant report DIR…`: variants side by side, in the terminal, as JSON, as one HTML page."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from quant.errors import OutputError

__all__ = ["add"]


def add(commands: Any) -> None:
    report = commands.add_parser("report", help="variants side by side: size, quality, cost, who can serve them")
    report.add_argument("folders", type=Path, nargs="+", metavar="DIR", help="checkpoint directories, the base as well")
    report.add_argument("--reference", type=Path, metavar="DIR", help="which of them (default: the bf16 one)")
    report.add_argument("--html", type=Path, metavar="FILE", help="write one self-contained page")
    report.add_argument("--json", action="store_true", help="print JSON instead of tables")
    report.add_argument("--no-hash", action="store_true", help="do not check that scores are of these weights (faster)")
    report.set_defaults(command=_report)


def _report(options: argparse.Namespace) -> None:
    from quant.report.page import page  # noqa: PLC0415
    from quant.report.terminal import as_json, as_text  # noqa: PLC0415
    from quant.report.view import view_of  # noqa: PLC0415

    view = view_of(options.folders, options.reference, check_weights=not options.no_hash)
    if options.html is not None:
        _write(options.html, page(view))
    print(json.dumps(as_json(view), indent=2) if options.json else as_text(view))


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as exc:
        raise OutputError(f"{path} could not be written: {exc.strerror or exc}. Check its directory.") from exc
