"""`wattgate energy replay`: shares a recorded meter's joules out to recorded requests."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from server.accounts import Account
from server.console import say
from server.energy.attribution import ATTRIBUTIONS
from server.energy.methods import AUTOMATIC
from server.energy.replay import Replayed, replay
from server.errors import TraceError
from server.units import MICROJOULES_PER_JOULE

__all__ = ["add"]

_STDOUT: Final = "-"


def add(verbs: Any) -> None:
    """Add the verb `replay`."""
    parser = verbs.add_parser(
        "replay",
        help="share a recorded meter's joules out to recorded requests",
        description="Runs the gateway's own attribution on files of JSON lines; docs/energy.md has the forms.",
    )
    parser.add_argument("--requests", type=Path, required=True, metavar="FILE", help="requests, with their token times")
    parser.add_argument("--meter", type=Path, required=True, metavar="FILE", help="readings of an energy counter")
    parser.add_argument(
        "--engine", metavar="NAME", help="only this engine's requests, and those that name none, are on the meter"
    )
    parser.add_argument(
        "--method", choices=sorted(ATTRIBUTIONS), default=AUTOMATIC, help=f"of attribution; default {AUTOMATIC}"
    )
    parser.add_argument(
        "--out", required=True, metavar="FILE", help="a line a request and a summary; - is the standard output"
    )
    parser.set_defaults(run=_replay)


def _replay(arguments: argparse.Namespace) -> int:
    found = replay(arguments.requests, arguments.meter, engine=arguments.engine, method=arguments.method)
    text = "".join(json.dumps(line) + "\n" for line in _lines(found))
    if arguments.out == _STDOUT:
        sys.stdout.write(text)
    else:
        _write(Path(arguments.out), text)
    for warning, times in sorted(found.warnings.items()):
        say(f"{warning.replace('_', ' ')}: {times}")
    return 0


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as exc:
        raise TraceError(f"{path} cannot be written ({exc.strerror}): name another file.") from exc


def _lines(found: Replayed) -> Iterator[dict[str, Any]]:
    for request, energy in found.requests:
        if request.refused:
            yield _line(request.id, 0, 0)
        elif energy is None:
            yield _line(request.id, None, None)
        else:
            yield _line(request.id, energy.prefill, energy.decode)
    yield {"summary": _summary(found)}


def _line(id_: Any, prefill: int | None, decode: int | None) -> dict[str, Any]:
    """`microjoules` is what the request adds to the sum: of one that no meter saw, nothing."""
    total = None if prefill is None or decode is None else prefill + decode
    return {
        "id": id_,
        "joules": _joules(total),
        "prefill_joules": _joules(prefill),
        "decode_joules": _joules(decode),
        "microjoules": total or 0,
    }


def _summary(found: Replayed) -> dict[str, Any]:
    known = found.windows > 0 or found.meter > 0
    amounts = {"meter": found.meter, **{_NAMES[account]: amount for account, amount in found.accounts.items()}}
    return {
        **{f"{name}_joules": _joules(amount if known else None) for name, amount in amounts.items()},
        "residual_joules": _joules(found.residual if known else None),
        "method": found.method,
        "confidence": round(found.confidence, 6),
        "microjoules": amounts,
        "warnings": dict(sorted(found.warnings.items())),
    }


_NAMES: Final = {
    Account.ACTIVE: "attributed",
    Account.IDLE: "idle",
    Account.UNATTRIBUTED: "unattributed",
    Account.OTHER: "other",
}


def _joules(microjoules: int | None) -> float | None:
    return None if microjoules is None else microjoules / MICROJOULES_PER_JOULE
